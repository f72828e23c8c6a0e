package main

import (
	"archive/tar"
	"bufio"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// The agent's image is built for this machine, pushed, and pulled back. The controller's is put together in the same way from two other programs, which are
// not built here a second time.
func TestAnImageIsPushedAndPulledBackAsItWasBuilt(t *testing.T) {
	platform := v1.Platform{OS: "linux", Architecture: runtime.GOARCH}
	build := func(out string) *image {
		built, err := builderFor(t, out, platform).build(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return built
	}
	out := t.TempDir()
	built := build(out)
	digest := digestOf(t, built.index)
	if again := digestOf(t, build(t.TempDir()).index); again != digest {
		t.Errorf("the same commit was built as %s and as %s", digest, again)
	}

	registry := serve(t)
	pushed, err := built.push(t.Context(), registry+"/acme", "1.2.3-test")
	if err != nil {
		t.Fatal(err)
	}
	if want := registry + "/acme/towpath-agent@" + digest.String(); pushed.String() != want {
		t.Errorf("pushed as %s, want %s", pushed, want)
	}
	reference, err := name.ParseReference(registry + "/acme/towpath-agent:1.2.3-test")
	if err != nil {
		t.Fatal(err)
	}
	index, err := remote.Index(reference)
	if err != nil {
		t.Fatal(err)
	}
	if got := digestOf(t, index); got != digest {
		t.Errorf("pulled back as %s, want %s", got, digest)
	}
	pulled, err := remote.Image(reference, remote.WithPlatform(platform))
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(pulled); err != nil {
		t.Error(err)
	}
	config, err := pulled.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if c := config.Config; c.User != "65532:65532" || !slices.Equal(c.Entrypoint, []string{"/usr/local/bin/towpath-agent"}) || config.OS != "linux" || config.Architecture != runtime.GOARCH ||
		c.Labels["org.opencontainers.image.version"] != "1.2.3+test" || c.Labels["org.opencontainers.image.revision"] == "" {
		t.Errorf("the image's configuration is %+v", config)
	}
	files := extract(t, pulled)
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(files["etc/ssl/certs/ca-certificates.crt"].content) || strings.Count(string(files["etc/ssl/certs/ca-certificates.crt"].content), "BEGIN") < 100 {
		t.Error("the image holds no authorities that are trusted")
	}
	for path, f := range files {
		if f.owner != 0 && path != "var/lib/towpath" || f.mode&0o6022 != 0 && path != "tmp" {
			t.Errorf("%s is of user %d, with mode %o", path, f.owner, f.mode)
		}
	}
	program := filepath.Join(t.TempDir(), "towpath-agent")
	if err := os.WriteFile(program, files["usr/local/bin/towpath-agent"].content, 0o755); err != nil {
		t.Fatal(err)
	}
	if said, err := exec.CommandContext(t.Context(), program, "--version").CombinedOutput(); err != nil || strings.TrimSpace(string(said)) != "1.2.3+test" {
		t.Errorf("the program says that it is %s (%v)", said, err)
	}
	expectBill(t, reference.Context().Digest(digestOf(t, pulled).String()))

	if err := built.write(filepath.Join(out, "kept"), "1.2.3+test"); err != nil {
		t.Fatal(err)
	}
	expectKept(t, filepath.Join(out, "kept"), digest)
	controller := builderFor(t, out, platform)
	controller.kind = kinds()[0]
	programs := t.TempDir()
	for _, program := range controller.kind.programs {
		if err := os.Link(filepath.Join(out, "programs", "linux-"+runtime.GOARCH, "towpath-agent"), filepath.Join(programs, program)); err != nil {
			t.Fatal(err)
		}
	}
	of, err := controller.assemble(programs, platform)
	if err != nil {
		t.Fatal(err)
	}
	if files := extract(t, of); files["usr/local/bin/towpath"].mode != 0o755 || files["usr/local/bin/towpath-controller"].mode != 0o755 {
		t.Error("the controller's image lacks a program")
	}
}

func builderFor(t *testing.T, out string, platform v1.Platform) builder {
	t.Helper()
	made, revision, err := commit(t.Context(), "../..")
	if err != nil {
		t.Fatal(err)
	}
	return builder{options: options{root: "../..", out: out, version: "1.2.3+test", platforms: []string{platform.String()}}, kind: kinds()[1], made: made, revision: revision}
}

func digestOf(t *testing.T, of interface{ Digest() (v1.Hash, error) }) v1.Hash {
	t.Helper()
	digest, err := of.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

// extract is the files of an image.
func extract(t *testing.T, of v1.Image) map[string]file {
	t.Helper()
	stream := mutate.Extract(of)
	defer stream.Close()
	files := map[string]file{}
	for archive := tar.NewReader(stream); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		files[header.Name] = file{header.Name, header.Mode, content, header.Uid}
	}
}

// expectBill looks for the bill of materials where scanners do: among the image's referrers.
func expectBill(t *testing.T, of name.Digest) {
	t.Helper()
	referrers, err := remote.Referrers(of, remote.WithFilter("artifactType", spdxType))
	if err != nil {
		t.Fatal(err)
	}
	list, err := referrers.IndexManifest()
	if err != nil || len(list.Manifests) != 1 || list.Manifests[0].ArtifactType != spdxType {
		t.Fatalf("the image has referrers %+v (%v), want one bill of materials", list, err)
	}
	found, err := remote.Get(of.Context().Digest(list.Manifests[0].Digest.String()))
	if err != nil {
		t.Fatal(err)
	}
	var manifest v1.Manifest
	if err := json.Unmarshal(found.Manifest, &manifest); err != nil {
		t.Fatal(err)
	}
	layer, err := remote.Layer(of.Context().Digest(manifest.Layers[0].Digest.String()))
	if err != nil {
		t.Fatal(err)
	}
	content, err := layer.Compressed()
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	var d document
	if err := json.NewDecoder(content).Decode(&d); err != nil {
		t.Fatal(err)
	}
	parts, ids := map[string]part{}, map[string]bool{d.ID: true}
	for _, p := range d.Packages {
		if ids[p.ID] {
			t.Errorf("two packages are %s", p.ID)
		}
		parts[p.Name], ids[p.ID] = p, true
		if p.ID == "SPDXRef-Image" && !slices.Contains(p.Checksums, checksum{"SHA256", strings.TrimPrefix(of.DigestStr(), "sha256:")}) {
			t.Errorf("the bill is about %+v", p)
		}
	}
	for _, r := range d.Relationship {
		if !ids[r.Element] || !ids[r.Related] {
			t.Errorf("%s %s %s: there is no such package", r.Element, r.Type, r.Related)
		}
	}
	if !ids["SPDXRef-Image"] || !ids["SPDXRef-Program-towpath-agent"] {
		t.Error("the bill lacks the image, or its program")
	}
	if got := parts["stdlib"].Version; got != strings.TrimPrefix(runtime.Version(), "go") {
		t.Errorf("built with Go %s, want %s", got, runtime.Version())
	}
	used, err := exec.CommandContext(t.Context(), "go", "-C", "../..", "list", "-m", "-f", "{{.Version}}", "google.golang.org/grpc").Output()
	if err != nil {
		t.Fatal(err)
	}
	if p := parts["google.golang.org/grpc"]; len(p.Refs) != 1 || p.Refs[0].Locator != "pkg:golang/google.golang.org/grpc@"+strings.TrimSpace(string(used)) {
		t.Errorf("the bill has gRPC as %+v, want %s", p, used)
	}
	if parts["golang.org/x/crypto/x509roots/fallback"].Version == "" {
		t.Error("the bill does not say where the authorities come from")
	}
}

// expectKept reads a layout as other tools do.
func expectKept(t *testing.T, dir string, digest v1.Hash) {
	t.Helper()
	kept, err := layout.FromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	index, err := kept.ImageIndex()
	if err != nil {
		t.Fatal(err)
	}
	list, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if m := list.Manifests; len(m) != 2 || m[0].Digest != digest || m[0].Annotations["org.opencontainers.image.ref.name"] != "1.2.3_test" || m[1].ArtifactType != spdxType {
		t.Errorf("the layout holds %+v", m)
	}
	if err := validate.Index(must(index.ImageIndex(digest))); err != nil {
		t.Error(err)
	}
	for _, m := range list.Manifests {
		if _, err := kept.Bytes(m.Digest); err != nil {
			t.Error(err)
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// serve runs a registry of the distribution's package until the test ends, and returns its HOST:PORT.
func serve(t *testing.T) string {
	t.Helper()
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Fatal("no docker-registry; make deps installs what the tests need")
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {formatter: text}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: '127.0.0.1:0'}\n", filepath.Join(dir, "data"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	server := exec.Command(program, "serve", config)
	log, err := server.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Signal(syscall.SIGTERM)
		_ = server.Wait()
	})
	listening := regexp.MustCompile(`listening on (127\.0\.0\.1:\d+)`)
	for lines := bufio.NewScanner(log); lines.Scan(); {
		if at := listening.FindStringSubmatch(lines.Text()); at != nil {
			go func() { _, _ = io.Copy(io.Discard, log) }()
			return at[1]
		}
	}
	t.Fatal("the registry ended before it listened")
	return ""
}
