package render

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	sigsyaml "sigs.k8s.io/yaml"

	"towpath/deployment"
	"towpath/manifest"
)

// entry renders one entry of manifests.
func (r *rendering) entry(m deployment.Manifest, field string) ([]manifest.Object, error) {
	switch {
	case m.Inline != "":
		return r.parse([]byte(r.fill(m.Inline)), fmt.Sprintf("%s (%s.inline)", r.job.File.Path, field))
	case m.Kustomize != nil:
		dir, err := r.find(r.fill(m.Kustomize.Path), m.Position, field)
		if err != nil {
			return nil, err
		}
		return r.kustomize(dir)
	case m.Helm != nil:
		return r.helm(m, field)
	}
	name := r.fill(m.Path)
	if isAddress(name) {
		text, err := r.fetch(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", shownAddress(name), err)
		}
		return r.parse(text, shownAddress(name))
	}
	at, err := r.find(name, m.Position, field)
	if err != nil {
		return nil, err
	}
	place, err := r.stat(at)
	if err != nil {
		return nil, err
	}
	if !place.Dir {
		return r.file(at)
	}
	return r.directory(at, m, field)
}

func (r *rendering) fill(text string) string { return fill(text, r.job.File, r.target) }

// fill replaces the variables of ours that are known when a file is rendered; other braces are none of ours.
func fill(text string, file *deployment.File, target *deployment.Target) string {
	return deployment.FillKnown(text, func(name string) (string, bool) {
		switch name {
		case "armory.applicationName":
			return file.Application, true
		case "armory.environmentName":
			return target.Name, true
		case "armory.accountName":
			return target.Account, true
		case "armory.namespace":
			return target.Namespace, true
		}
		if key, ours := strings.CutPrefix(name, "context."); ours {
			value, known := deployment.Contexts(file.Context, file.ContextOverrides)[key]
			return value, known
		}
		return "", false
	})
}

// find says where a path of the deployment file leads: from the file's own directory, else from the repository's root, as both are in use.
func (r *rendering) find(name string, at deployment.Position, field string) (string, error) {
	if name == "" {
		return "", errors.New("the path is empty")
	}
	root := path.Clean(strings.TrimLeft(name, "/"))
	beside := path.Join(path.Dir(r.job.File.Path), name)
	if strings.HasPrefix(name, "/") {
		beside = root
	}
	if outside(root) && outside(beside) {
		return "", fmt.Errorf("%s leads out of the repository", name)
	}
	var found []string
	for _, candidate := range slices.Compact([]string{beside, root}) {
		if outside(candidate) {
			continue
		}
		place, err := r.stat(candidate)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return "", err
		}
		if !slices.Contains(found, place.Physical) {
			found = append(found, place.Physical)
		}
	}
	switch len(found) {
	case 0:
		if beside == root {
			return "", fmt.Errorf("%s is not in the repository", root)
		}
		return "", fmt.Errorf("neither %s (beside the deployment file) nor %s (from the repository's root) is in the repository", beside, root)
	case 2:
		r.warn(at, field, "both %s and %s are in the repository; the first, beside the deployment file, is taken", found[0], found[1])
	}
	return found[0], nil
}

func outside(name string) bool { return name == ".." || strings.HasPrefix(name, "../") }

// directory renders everything in and below a directory, or the kustomization or chart that it is.
func (r *rendering) directory(dir string, m deployment.Manifest, field string) ([]manifest.Object, error) {
	items, err := r.list(dir)
	if err != nil {
		return nil, err
	}
	for _, item := range items {
		switch {
		case item.Dir:
		case slices.Contains(kustomizationNames, item.Name):
			return r.kustomize(dir)
		case item.Name == "Chart.yaml":
			return r.chartAt(dir, deployment.Helm{Path: dir, IncludeCRDs: true}, map[string]any{}, m, field)
		}
	}
	return r.walk(dir, 0)
}

func (r *rendering) walk(dir string, depth int) ([]manifest.Object, error) {
	if depth > r.job.Limits.Depth {
		return nil, fmt.Errorf("%s: directories more than %d deep", dir, r.job.Limits.Depth)
	}
	items, err := r.list(dir)
	if err != nil {
		return nil, err
	}
	var all []manifest.Object
	for _, item := range items {
		at := path.Join(dir, item.Name)
		isDir := item.Dir
		if item.Link {
			place, err := r.stat(at)
			if err != nil {
				return nil, err
			}
			at, isDir = place.Physical, place.Dir
		}
		var objects []manifest.Object
		switch {
		case isDir:
			objects, err = r.walk(at, depth+1)
		case strings.HasSuffix(item.Name, ".yaml") || strings.HasSuffix(item.Name, ".yml"):
			objects, err = r.file(at)
		}
		if err != nil {
			return nil, err
		}
		all = append(all, objects...)
	}
	return all, nil
}

func (r *rendering) file(name string) ([]manifest.Object, error) {
	text, err := r.read(name)
	if err != nil {
		return nil, err
	}
	return r.parse(text, name)
}

// parse reads the objects of a YAML text of one or more documents. source names the text in messages and in objects.
func (r *rendering) parse(text []byte, source string) ([]manifest.Object, error) {
	var all []manifest.Object
	line := 1
	for _, document := range documents(text) {
		at := fmt.Sprintf("%s:%d", source, line+leading(document))
		line += bytes.Count(document, []byte("\n"))
		if err := r.measure(document); err != nil {
			return nil, fmt.Errorf("%s: %w", at, err)
		}
		var fields map[string]any
		if err := sigsyaml.Unmarshal(document, &fields, useNumber); err != nil {
			return nil, fmt.Errorf("%s: not valid YAML: %s", at, strings.TrimPrefix(strings.TrimPrefix(err.Error(), "error converting YAML to JSON: "), "yaml: "))
		}
		if len(fields) == 0 {
			continue
		}
		objects, err := r.objects(fields, at)
		if err != nil {
			return nil, err
		}
		all = append(all, objects...)
	}
	return all, nil
}

// documents splits a text at its document markers; each part keeps its lines, so that they can be counted.
func documents(text []byte) [][]byte {
	var parts [][]byte
	start := 0
	for at := 0; at < len(text); {
		end := bytes.IndexByte(text[at:], '\n')
		if end < 0 {
			end = len(text) - at - 1
		}
		line := bytes.TrimRight(text[at:at+end+1], "\r\n")
		if bytes.Equal(line, []byte("---")) || bytes.HasPrefix(line, []byte("--- ")) {
			if at > start {
				parts = append(parts, text[start:at])
			}
			start = at
		}
		at += end + 1
	}
	return append(parts, text[start:])
}

// leading counts the lines before a document's first content.
func leading(document []byte) int {
	count := 0
	for _, line := range bytes.Split(document, []byte("\n")) {
		line = bytes.TrimSpace(line)
		if len(line) > 0 && line[0] != '#' && !bytes.HasPrefix(line, []byte("---")) {
			return count
		}
		count++
	}
	return 0
}

// measure refuses a document that aliases make larger than it may be. Only such a document is parsed for it.
func (r *rendering) measure(document []byte) error {
	if !bytes.ContainsRune(document, '&') || !bytes.ContainsRune(document, '*') {
		return nil
	}
	var root yaml.Node
	if err := yaml.Unmarshal(document, &root); err != nil {
		return nil // the one who reads it says what is wrong
	}
	if expanded(&root, r.job.Limits.Nodes, map[*yaml.Node]int{}) > r.job.Limits.Nodes {
		return fmt.Errorf("more than %d values once aliases are followed", r.job.Limits.Nodes)
	}
	return nil
}

// expanded counts the nodes of a tree with aliases followed, up to most and one more.
func expanded(n *yaml.Node, most int, known map[*yaml.Node]int) int {
	if count, found := known[n]; found {
		return count
	}
	if n.Kind == yaml.AliasNode {
		return expanded(n.Alias, most, known)
	}
	count := 1
	for _, inner := range n.Content {
		if count += expanded(inner, most, known); count > most {
			return most + 1
		}
	}
	known[n] = count
	return count
}

// objects is the object that a document holds, or those of a list.
func (r *rendering) objects(fields map[string]any, source string) ([]manifest.Object, error) {
	kind, _ := fields["kind"].(string)
	list, isList := fields["items"].([]any)
	if isList && strings.HasSuffix(kind, "List") {
		var all []manifest.Object
		for i, item := range list {
			inner, ok := item.(map[string]any)
			if !ok {
				return nil, fmt.Errorf("%s: item %d of the %s is no object", source, i, kind)
			}
			objects, err := r.objects(inner, source)
			if err != nil {
				return nil, err
			}
			all = append(all, objects...)
		}
		return all, nil
	}
	o, err := manifest.FromMap(fields, source)
	if err != nil {
		return nil, err
	}
	return []manifest.Object{o}, nil
}
