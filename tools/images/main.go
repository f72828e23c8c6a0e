// Command images builds the container images of Towpath, without Docker: the programs for each platform, on nothing but certificates, as OCI layouts, each
// with a bill of its materials; and pushes them to a registry where one is named. The same commit, built by the same release of Go, gives the same digests.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func main() {
	var o options
	flag.StringVar(&o.root, "root", "..", "folder of the module towpath")
	flag.StringVar(&o.out, "out", "../.build/images", "folder that the images are written to")
	flag.StringVar(&o.version, "version", "unknown", "version that programs and labels say")
	flag.StringVar(&o.registry, "registry", "", "HOST/PATH that the images are pushed below; empty: nowhere")
	platforms := flag.String("platforms", "linux/amd64,linux/arm64", "platforms, with commas")
	flag.Parse()
	o.platforms = strings.Split(*platforms, ",")
	if err := run(context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

type options struct {
	root, out, version, registry string
	platforms                    []string
}

// kind is one of the images.
type kind struct {
	name        string
	description string
	programs    []string // the first is started
}

func kinds() []kind {
	return []kind{
		{"towpath-controller", "The controller of Towpath, and its command line", []string{"towpath-controller", "towpath"}},
		{"towpath-agent", "The agent that connects a cluster to Towpath", []string{"towpath-agent"}},
	}
}

func run(ctx context.Context, o options) error {
	made, revision, err := commit(ctx, o.root)
	if err != nil {
		return err
	}
	for _, k := range kinds() {
		b := builder{options: o, kind: k, made: made, revision: revision}
		built, err := b.build(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", k.name, err)
		}
		if err := built.write(filepath.Join(o.out, k.name), o.version); err != nil {
			return fmt.Errorf("%s: %w", k.name, err)
		}
		digest, err := built.index.Digest()
		if err != nil {
			return err
		}
		fmt.Printf("%s  %s  %s\n", filepath.Join(o.out, k.name), digest, strings.Join(o.platforms, " "))
		if o.registry != "" {
			pushed, err := built.push(ctx, o.registry, tag(o.version))
			if err != nil {
				return fmt.Errorf("%s: %w", k.name, err)
			}
			fmt.Printf("pushed %s\n  --set image.repository=%s --set image.tag=%s\n", pushed, pushed.Context(), tag(o.version))
		}
	}
	return nil
}

// commit is when and of what this is built: images of one commit are the same whenever they are made.
func commit(ctx context.Context, root string) (made time.Time, revision string, err error) {
	command := exec.CommandContext(ctx, "git", "log", "-1", "--format=%ct %H")
	command.Dir = root
	seconds, gitErr := "0", error(nil)
	if out, err := command.Output(); err == nil {
		seconds, revision, _ = strings.Cut(strings.TrimSpace(string(out)), " ")
	} else {
		gitErr = err
	}
	if given := os.Getenv("SOURCE_DATE_EPOCH"); given != "" {
		seconds = given
	} else if gitErr != nil {
		return made, "", fmt.Errorf("no commit says when this was made, and SOURCE_DATE_EPOCH is not set: %w", gitErr)
	}
	n, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return made, "", fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	return time.Unix(n, 0).UTC(), revision, nil
}

// tag is a version as a tag may be written.
func tag(version string) string {
	clean := regexp.MustCompile(`[^A-Za-z0-9_.-]`).ReplaceAllString(version, "_")
	return clean[:min(len(clean), 128)]
}

// compile builds the programs of an image for a platform, and returns their folder.
func (b builder) compile(ctx context.Context, platform v1.Platform) (string, error) {
	into := filepath.Join(b.out, "programs", platform.OS+"-"+platform.Architecture)
	if err := os.MkdirAll(into, 0o755); err != nil {
		return "", err
	}
	into, err := filepath.Abs(into)
	if err != nil {
		return "", err
	}
	args := []string{"build", "-trimpath", "-buildvcs=false", "-tags", "grpcnotrace", "-ldflags", "-s -w -buildid= -X towpath/internal/version.version=" + b.version, "-o", into + "/"}
	for _, program := range b.kind.programs {
		args = append(args, "./cmd/"+program)
	}
	command := exec.CommandContext(ctx, "go", args...)
	command.Dir = b.root
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOOS="+platform.OS, "GOARCH="+platform.Architecture, "GOAMD64=v1", "GOARM64=v8.0")
	var said bytes.Buffer
	command.Stderr = &said
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("build for %s: %w\n%s", platform, err, &said)
	}
	return into, nil
}
