package charts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"
)

// Media types of a chart in a registry.
const (
	configType  = "application/vnd.cncf.helm.config.v1+json"
	contentType = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
)

// fromRegistry brings a chart oci://HOST/PATH. In a registry the tag is the version, with _ where that has +.
func (f *Fetcher) fromRegistry(ctx context.Context, w wanted) (brought, error) {
	repository, err := f.open(w.chart)
	if err != nil {
		return brought{}, err
	}
	reference := strings.ReplaceAll(w.version, "+", "_")
	if w.digest != "" {
		reference = w.digest
	}
	at, manifest, err := readManifest(ctx, repository, reference)
	if err != nil {
		return brought{}, f.explain(ctx, repository, w, err)
	}
	for _, layer := range manifest.Layers {
		if layer.MediaType != contentType {
			continue
		}
		if layer.Size > f.config.ArchiveBytes {
			return brought{}, fmt.Errorf("%s %s has %d bytes; at most %d are taken", w.chart, w.version, layer.Size, f.config.ArchiveBytes)
		}
		body, err := repository.Blobs().Fetch(ctx, layer)
		if err != nil {
			return brought{}, f.explain(ctx, repository, w, err)
		}
		defer body.Close()
		archive, err := content.ReadAll(body, layer) // checks size and digest
		if err != nil {
			return brought{}, fmt.Errorf("%s %s: %w", w.chart, w.version, err)
		}
		return brought{archive, at.Digest.String()}, nil
	}
	return brought{}, fmt.Errorf("%s %s is no Helm chart but %q", w.chart, w.version, manifest.Config.MediaType)
}

// open names a repository of a registry; it does no I/O.
func (f *Fetcher) open(chart string) (*remote.Repository, error) {
	repository, err := remote.NewRepository(strings.TrimPrefix(chart, "oci://"))
	if err != nil || repository.Reference.Reference != "" {
		return nil, fmt.Errorf("%s: a chart in a registry is written oci://HOST/PATH, without a tag", chart)
	}
	repository.PlainHTTP = loopback(repository.Reference.Registry)
	repository.TagListMaxPages = 10
	repository.ManifestMediaTypes = []string{ocispec.MediaTypeImageManifest}
	client := &auth.Client{Client: f.config.HTTP, Cache: auth.NewCache()}
	client.Credential = func(_ context.Context, host string) (auth.Credential, error) {
		credential := f.credential(chart)
		if credential == nil || host != repository.Reference.Host() {
			return auth.EmptyCredential, nil
		}
		password, err := credential.password()
		return auth.Credential{Username: credential.Username, Password: password}, err
	}
	repository.Client = client
	return repository, nil
}

func readManifest(ctx context.Context, repository *remote.Repository, reference string) (at ocispec.Descriptor, manifest ocispec.Manifest, err error) {
	at, body, err := repository.FetchReference(ctx, reference)
	if err != nil {
		return at, manifest, err
	}
	defer body.Close()
	if at.Size > 1<<20 {
		return at, manifest, fmt.Errorf("its manifest has %d bytes", at.Size)
	}
	text, err := content.ReadAll(body, at)
	if err != nil {
		return at, manifest, err
	}
	return at, manifest, json.Unmarshal(text, &manifest)
}

// explain makes what a registry answered a sentence; of a version that is not there it says which are.
func (f *Fetcher) explain(ctx context.Context, repository *remote.Repository, w wanted, err error) error {
	var answer *errcode.ErrorResponse
	if errors.Is(err, auth.ErrBasicCredentialNotFound) {
		return wantsCredentials(w.chart, http.StatusUnauthorized)
	}
	if errors.As(err, &answer) && (answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden) {
		return wantsCredentials(w.chart, answer.StatusCode)
	}
	if !errors.Is(err, errdef.ErrNotFound) && (answer == nil || answer.StatusCode != http.StatusNotFound) {
		return fmt.Errorf("%s %s: %w", w.chart, w.version, err)
	}
	if w.digest != "" {
		return fmt.Errorf("%s has nothing with the digest %s", w.chart, w.digest)
	}
	var all []string
	if repository.Tags(ctx, "", func(tags []string) error {
		for _, tag := range tags {
			all = append(all, strings.ReplaceAll(tag, "_", "+"))
		}
		return nil
	}) != nil || len(all) == 0 {
		return fmt.Errorf("%s is not in its registry", w.chart)
	}
	return noVersion(w, all)
}
