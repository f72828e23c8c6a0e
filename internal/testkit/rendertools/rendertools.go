// Package rendertools builds the command-line tools that renders are held against: helm and kustomize, at the versions of the libraries that we render with.
package rendertools

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
)

// Tools are the paths of the programs.
type Tools struct{ Helm, Kustomize string }

var once = sync.OnceValues(build)

// Build builds the tools below .build, or finds them there. They are modules of their own, so that what they need is not among what we need.
func Build(t testing.TB) Tools {
	t.Helper()
	tools, err := once()
	if err != nil {
		t.Fatalf("helm and kustomize cannot be built: %v", err)
	}
	return tools
}

func build() (Tools, error) {
	_, here, _, _ := runtime.Caller(0)
	root := filepath.Join(filepath.Dir(here), "../../..")
	out := filepath.Join(root, ".build/rendertools")
	if err := os.MkdirAll(out, 0o755); err != nil {
		return Tools{}, err
	}
	lock, err := os.Create(filepath.Join(out, "lock")) // tests of several packages build them at once
	if err != nil {
		return Tools{}, err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return Tools{}, err
	}
	build := exec.Command("go", "build", "-o", out+"/", "helm.sh/helm/v3/cmd/helm", "sigs.k8s.io/kustomize/kustomize/v5")
	build.Dir = filepath.Join(root, "tools/render")
	if said, err := build.CombinedOutput(); err != nil {
		return Tools{}, fmt.Errorf("%w\n%s", err, said)
	}
	return Tools{Helm: filepath.Join(out, "helm"), Kustomize: filepath.Join(out, "kustomize")}, nil
}
