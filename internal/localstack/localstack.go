// Package localstack runs the product on this machine as people run it: its programs as processes, from a configuration of their own, in front of clusters
// and a repository that are there. Tests and benchmarks share it.
package localstack

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// Build makes programs of this module in a directory.
func Build(ctx context.Context, into string, flags []string, packages ...string) error {
	root, err := ModuleRoot(ctx)
	if err != nil {
		return err
	}
	args := append([]string{"build", "-o", into + "/"}, flags...)
	command := exec.CommandContext(ctx, "go", append(args, packages...)...)
	command.Dir = root
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return nil
}

// ModuleRoot is the folder of this module.
func ModuleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out))), nil
}
