// Package world runs everything for a test as it runs for people: real clusters, real programs as processes, a real repository. The clusters are shared
// by the tests of one binary; each test has a controller, agents and a namespace of its own.
package world

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"towpath/internal/localkube"
	"towpath/internal/localstack"
)

// Shared is what the tests of one binary share.
type Shared struct {
	Programs string // directory of towpath, towpath-controller, towpath-agent
	Clusters map[string]*Cluster
	// Images, when set, says which images of pods are programs, as localcluster reads it: such pods run, with addresses of their own.
	Images string
	dir    string
}

// Cluster is one local cluster.
type Cluster struct {
	Kubeconfig string
	Audit      string // file of the API server's audit log

	local *localkube.Local
}

// Main is TestMain: it builds the programs and starts the clusters that tests name, and ends all of it after them.
func Main(m *testing.M, shared *Shared, build Build, clusters ...string) {
	os.Exit(run(m, shared, build, clusters))
}

// Build is how the programs are built.
type Build struct {
	Race bool   // with the race detector, where this test has it
	Tags string // "crashpoints"
}

// sideBySide is how many tests of one binary run at once: they wait for clusters far more than they compute.
const sideBySide = "6"

func run(m *testing.M, shared *Shared, build Build, clusters []string) int {
	flag.Parse()
	if err := flag.Set("test.parallel", sideBySide); err != nil {
		return complain(err)
	}
	dir, err := os.MkdirTemp("", "towpath-world")
	if err != nil {
		return complain(err)
	}
	defer os.RemoveAll(dir)
	shared.dir, shared.Programs, shared.Clusters = dir, filepath.Join(dir, "bin"), map[string]*Cluster{}
	if err := shared.build(build); err != nil {
		return complain(err)
	}
	defer shared.stop()
	if err := shared.start(clusters); err != nil {
		return complain(err)
	}
	return m.Run()
}

func complain(err error) int {
	fmt.Fprintln(os.Stderr, "world:", err)
	return 1
}

// build makes the programs that tests run.
func (s *Shared) build(b Build) error {
	flags := []string{"-tags", b.Tags}
	if b.Race && raceEnabled {
		flags = append(flags, "-race")
	}
	return localstack.Build(context.Background(), s.Programs, flags, "./cmd/towpath", "./cmd/towpath-controller", "./cmd/towpath-agent")
}

func (s *Shared) start(names []string) error {
	root, err := localstack.ModuleRoot(context.Background())
	if err != nil {
		return err
	}
	programs := os.Getenv("TOWPATH_LOCALCLUSTER")
	if programs == "" {
		programs = filepath.Join(root, ".build", "localcluster")
	}
	network, images := "none", ""
	if s.Images != "" {
		network, images = "own", filepath.Join(s.dir, "images.yaml")
		if err := os.WriteFile(images, []byte(s.Images), 0o600); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	var starting sync.WaitGroup
	errs := make([]error, len(names))
	for i, name := range names {
		c := &Cluster{Audit: filepath.Join(s.dir, name+"-audit.log")}
		s.Clusters[name] = c
		starting.Go(func() {
			c.local, errs[i] = localkube.Start(ctx, localkube.Options{Programs: programs, Dir: filepath.Join(s.dir, name), Audit: c.Audit, Network: network, Images: images})
			if errs[i] == nil {
				c.Kubeconfig = c.local.Kubeconfig
			}
		})
	}
	starting.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Shared) stop() {
	var stopping sync.WaitGroup
	for _, c := range s.Clusters {
		if c.local != nil {
			stopping.Go(c.local.Stop)
		}
	}
	stopping.Wait()
}
