package main

import (
	"cmp"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// spdxType is the media type of a bill of materials, and what registries are asked for.
const spdxType = "application/spdx+json"

// document is as much of SPDX 2.3 as is said here.
type document struct {
	Version      string         `json:"spdxVersion"`
	License      string         `json:"dataLicense"`
	ID           string         `json:"SPDXID"`
	Name         string         `json:"name"`
	Namespace    string         `json:"documentNamespace"`
	Creation     creation       `json:"creationInfo"`
	Packages     []part         `json:"packages"`
	Relationship []relationship `json:"relationships"`
}

type creation struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type part struct {
	ID        string      `json:"SPDXID"`
	Name      string      `json:"name"`
	Version   string      `json:"versionInfo,omitempty"`
	Purpose   string      `json:"primaryPackagePurpose,omitempty"`
	From      string      `json:"downloadLocation"`
	Analyzed  bool        `json:"filesAnalyzed"`
	License   string      `json:"licenseConcluded"`
	Declared  string      `json:"licenseDeclared"`
	Copyright string      `json:"copyrightText"`
	Checksums []checksum  `json:"checksums,omitempty"`
	Refs      []reference `json:"externalRefs,omitempty"`
}

type checksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type reference struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type relationship struct {
	Element string `json:"spdxElementId"`
	Type    string `json:"relationshipType"`
	Related string `json:"relatedSpdxElement"`
}

// bill is what an image is made of, as its programs themselves say: the modules that were linked into them, and the release of Go.
func (b builder) bill(programs string, platform v1.Platform, of v1.Image) (artifact, error) {
	subject, err := descriptor(of)
	if err != nil {
		return artifact{}, err
	}
	d := document{Version: "SPDX-2.3", License: "CC0-1.0", ID: "SPDXRef-DOCUMENT", Name: b.kind.name + " " + b.version + " " + platform.String(),
		Namespace: fmt.Sprintf("https://towpath.dev/spdx/%s/%s", b.kind.name, subject.Digest.Hex),
		Creation:  creation{b.made.Format(time.RFC3339), []string{"Tool: towpath-images"}}}
	image := unknown("SPDXRef-Image", b.kind.name, b.version, "CONTAINER")
	image.Checksums = []checksum{{"SHA256", subject.Digest.Hex}}
	d.Packages = []part{image}
	relate := func(element, how, related string) {
		d.Relationship = append(d.Relationship, relationship{element, how, related})
	}
	relate(d.ID, "DESCRIBES", image.ID)
	modules := map[string]part{}
	for _, program := range b.kind.programs {
		info, err := buildinfo.ReadFile(filepath.Join(programs, program))
		if err != nil {
			return artifact{}, err
		}
		p := unknown("SPDXRef-Program-"+program, program, b.version, "APPLICATION")
		d.Packages = append(d.Packages, p)
		relate(image.ID, "CONTAINS", p.ID)
		for _, m := range append(info.Deps, &debug.Module{Path: "stdlib", Version: strings.TrimPrefix(info.GoVersion, "go")}) {
			found := library(m)
			modules[found.ID] = found
			relate(p.ID, "DEPENDS_ON", found.ID)
		}
	}
	trusted, err := authoritiesModule()
	if err != nil {
		return artifact{}, err
	}
	roots := library(trusted)
	modules[roots.ID] = roots
	relate(image.ID, "CONTAINS", roots.ID)
	d.Packages = slices.AppendSeq(d.Packages, maps.Values(modules))
	slices.SortStableFunc(d.Packages[1:], func(a, b part) int { return cmp.Compare(a.ID, b.ID) })
	text, err := json.MarshalIndent(d, "", " ")
	if err != nil {
		return artifact{}, err
	}
	return artifact{kind: spdxType, name: fmt.Sprintf("%s-%s-%s.spdx.json", b.kind.name, platform.OS, platform.Architecture), content: append(text, '\n'), subject: subject, made: b.made}, nil
}

// authoritiesModule is the module that the trusted authorities come from, as this program was built with it.
func authoritiesModule() (*debug.Module, error) {
	const path = "golang.org/x/crypto/x509roots/fallback"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == path {
				return m, nil
			}
		}
	}
	return nil, fmt.Errorf("this program does not say which %s it was built with", path)
}

func unknown(id, name, version, purpose string) part {
	const nobody = "NOASSERTION"
	return part{ID: id, Name: name, Version: version, Purpose: purpose, From: nobody, License: nobody, Declared: nobody, Copyright: nobody}
}

var notOfAnID = regexp.MustCompile(`[^A-Za-z0-9.-]`)

// library is a module as scanners know it: by its package URL.
func library(m *debug.Module) part {
	if m.Replace != nil {
		m = m.Replace
	}
	p := unknown("SPDXRef-Module-"+notOfAnID.ReplaceAllString(m.Path+"-"+m.Version, "-"), m.Path, m.Version, "LIBRARY")
	p.Refs = []reference{{"PACKAGE-MANAGER", "purl", "pkg:golang/" + m.Path + "@" + url.QueryEscape(m.Version)}}
	return p
}
