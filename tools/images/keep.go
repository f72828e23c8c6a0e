package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// artifact is a file that says something about an image: registries list it among the image's referrers.
type artifact struct {
	kind    types.MediaType
	name    string
	content []byte
	subject v1.Descriptor
	made    time.Time
}

const nothing = types.MediaType("application/vnd.oci.empty.v1+json")

// layers are the artifact's: a configuration that says nothing, and the file.
func (a artifact) layers() []v1.Layer {
	return []v1.Layer{static.NewLayer([]byte("{}"), nothing), static.NewLayer(a.content, a.kind)}
}

// MediaType implements remote.Taggable.
func (artifact) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }

// RawManifest implements remote.Taggable.
func (a artifact) RawManifest() ([]byte, error) {
	var parts []v1.Descriptor
	for _, layer := range a.layers() {
		digest, err := layer.Digest()
		if err != nil {
			return nil, err
		}
		size, err := layer.Size()
		if err != nil {
			return nil, err
		}
		kind, err := layer.MediaType()
		if err != nil {
			return nil, err
		}
		parts = append(parts, v1.Descriptor{MediaType: kind, Digest: digest, Size: size})
	}
	parts[1].Annotations = map[string]string{"org.opencontainers.image.title": a.name}
	return json.Marshal(v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, ArtifactType: string(a.kind), Config: parts[0], Layers: parts[1:], Subject: &a.subject,
		Annotations: map[string]string{"org.opencontainers.image.created": a.made.Format(time.RFC3339)}})
}

// write keeps an image as an OCI layout, with its artifacts as referrers, and as files beside it.
func (i *image) write(dir, version string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	kept, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	if err := kept.AppendIndex(i.index, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": tag(version)})); err != nil {
		return err
	}
	for _, bill := range i.bills {
		manifest, err := bill.RawManifest()
		if err != nil {
			return err
		}
		for _, blob := range [][]byte{[]byte("{}"), bill.content, manifest} {
			digest, _, err := v1.SHA256(bytes.NewReader(blob))
			if err != nil {
				return err
			}
			if err := kept.WriteBlob(digest, io.NopCloser(bytes.NewReader(blob))); err != nil {
				return err
			}
		}
		digest, size, err := v1.SHA256(bytes.NewReader(manifest))
		if err != nil {
			return err
		}
		if err := kept.AppendDescriptor(v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: digest, Size: size, ArtifactType: string(bill.kind)}); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(filepath.Dir(dir), bill.name), bill.content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// push brings an image and its artifacts to REGISTRY/NAME:TAG, with the credentials that docker or podman keep.
func (i *image) push(ctx context.Context, registry, tag string) (name.Digest, error) {
	repository, err := name.NewRepository(strings.TrimSuffix(registry, "/") + "/" + i.kind.name)
	if err != nil {
		return name.Digest{}, err
	}
	with := []remote.Option{remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain), remote.WithUserAgent("towpath-images")}
	if err := remote.WriteIndex(repository.Tag(tag), i.index, with...); err != nil {
		return name.Digest{}, err
	}
	for _, bill := range i.bills {
		for _, layer := range bill.layers() {
			if err := remote.WriteLayer(repository, layer, with...); err != nil {
				return name.Digest{}, fmt.Errorf("%s: %w", bill.name, err)
			}
		}
		manifest, err := bill.RawManifest()
		if err != nil {
			return name.Digest{}, err
		}
		digest, _, err := v1.SHA256(bytes.NewReader(manifest))
		if err != nil {
			return name.Digest{}, err
		}
		if err := remote.Put(repository.Digest(digest.String()), bill, with...); err != nil {
			return name.Digest{}, fmt.Errorf("%s: %w", bill.name, err)
		}
	}
	digest, err := i.index.Digest()
	return repository.Digest(digest.String()), err
}
