package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// user is who programs run as: nobody that a machine knows.
const user = 65532

// builder builds one image.
type builder struct {
	options
	kind     kind
	made     time.Time
	revision string
}

// image is a built one: an index of platforms, and the bill of materials of each.
type image struct {
	kind  kind
	index v1.ImageIndex
	bills []artifact
}

// build compiles and assembles an image for all platforms.
func (b builder) build(ctx context.Context) (*image, error) {
	out := &image{kind: b.kind}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, name := range b.platforms {
		platform, err := v1.ParsePlatform(name)
		if err != nil {
			return nil, err
		}
		programs, err := b.compile(ctx, *platform)
		if err != nil {
			return nil, err
		}
		one, err := b.assemble(programs, *platform)
		if err != nil {
			return nil, err
		}
		bill, err := b.bill(programs, *platform, one)
		if err != nil {
			return nil, err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: one, Descriptor: v1.Descriptor{Platform: platform}})
		out.bills = append(out.bills, bill)
	}
	out.index = mutate.Annotations(index, b.labels()).(v1.ImageIndex)
	return out, nil
}

func (b builder) labels() map[string]string {
	labels := map[string]string{"org.opencontainers.image.title": b.kind.name, "org.opencontainers.image.description": b.kind.description,
		"org.opencontainers.image.version": b.version, "org.opencontainers.image.created": b.made.Format(time.RFC3339)}
	if b.revision != "" {
		labels["org.opencontainers.image.revision"] = b.revision
	}
	return labels
}

// assemble puts programs on top of what they need of a system, which is the same layer for all images.
func (b builder) assemble(programs string, platform v1.Platform) (v1.Image, error) {
	base, err := b.layer(system())
	if err != nil {
		return nil, err
	}
	files := []file{{name: "usr/", mode: 0o755}, {name: "usr/local/", mode: 0o755}, {name: "usr/local/bin/", mode: 0o755}}
	for _, program := range b.kind.programs {
		content, err := os.ReadFile(filepath.Join(programs, program))
		if err != nil {
			return nil, err
		}
		files = append(files, file{"usr/local/bin/" + program, 0o755, content, 0})
	}
	top, err := b.layer(files)
	if err != nil {
		return nil, err
	}
	history := func(what string) v1.History { return v1.History{Created: v1.Time{Time: b.made}, CreatedBy: what} }
	made := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	made, err = mutate.Append(made, mutate.Addendum{Layer: base, History: history("certificates, and a user")}, mutate.Addendum{Layer: top, History: history(b.kind.name + " " + b.version)})
	if err != nil {
		return nil, err
	}
	config, err := made.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Variant, config.Created = platform.OS, platform.Architecture, platform.Variant, v1.Time{Time: b.made}
	config.Config = v1.Config{User: fmt.Sprintf("%d:%d", user, user), WorkingDir: "/", Entrypoint: []string{"/usr/local/bin/" + b.kind.programs[0]}, Labels: b.labels(),
		Env: []string{"PATH=/usr/local/bin", "HOME=/tmp"}}
	if made, err = mutate.ConfigFile(made, config); err != nil {
		return nil, err
	}
	return mutate.Annotations(made, b.labels()).(v1.Image), nil
}

// file of an image; a folder's name ends in a slash.
type file struct {
	name    string
	mode    int64
	content []byte
	owner   int
}

// system is what programs need of one: authorities to trust, a name for their user, and somewhere to write where the root file system may be written.
func system() []file {
	passwd := fmt.Sprintf("root:x:0:0:root:/:/sbin/nologin\ntowpath:x:%d:%d:towpath:/tmp:/sbin/nologin\n", user, user)
	return []file{
		{"etc/", 0o755, nil, 0}, {"etc/group", 0o644, fmt.Appendf(nil, "root:x:0:\ntowpath:x:%d:\n", user), 0}, {"etc/passwd", 0o644, []byte(passwd), 0},
		{"etc/ssl/", 0o755, nil, 0}, {"etc/ssl/certs/", 0o755, nil, 0}, {"etc/ssl/certs/ca-certificates.crt", 0o644, authorities(), 0},
		{"tmp/", 0o1777, nil, 0}, {"var/", 0o755, nil, 0}, {"var/lib/", 0o755, nil, 0}, {"var/lib/towpath/", 0o750, nil, user},
	}
}

// authorities are those that Mozilla trusts. What a file cannot say, that one is trusted for its older certificates only, is left out with it.
func authorities() []byte {
	var out bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}) // into memory
		}
	}
	return out.Bytes()
}

// layer is files as a layer that is the same whenever it is made.
func (b builder) layer(files []file) (v1.Layer, error) {
	var out bytes.Buffer
	archive := tar.NewWriter(&out)
	for _, f := range files {
		header := &tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: f.mode, Size: int64(len(f.content)), Uid: f.owner, Gid: f.owner, ModTime: b.made, Format: tar.FormatPAX}
		if f.content == nil {
			header.Typeflag = tar.TypeDir
		}
		if err := archive.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := archive.Write(f.content); err != nil {
			return nil, err
		}
	}
	if err := archive.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(out.Bytes())), nil },
		tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(gzip.BestCompression))
}

// descriptor says where an image is found.
func descriptor(of v1.Image) (v1.Descriptor, error) {
	digest, err := of.Digest()
	size, sizeErr := of.Size()
	kind, kindErr := of.MediaType()
	return v1.Descriptor{MediaType: kind, Digest: digest, Size: size}, cmp.Or(err, sizeErr, kindErr)
}
