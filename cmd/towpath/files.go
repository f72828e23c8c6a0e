package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	sigsyaml "sigs.k8s.io/yaml"

	"towpath/api"
	"towpath/deployment"
	"towpath/render"
)

func (c *commandLine) validateCommand() *cobra.Command {
	var policies []string
	var strict bool
	command := &cobra.Command{Use: "validate FILE…", Short: "Check deployment files", Args: cobra.MinimumNArgs(1), RunE: func(cmd *cobra.Command, files []string) error {
		problems, err := c.validate(cmd.Context(), files, policies)
		if err != nil {
			return err
		}
		wrong := failed(problems) || strict && len(problems) > 0
		err = c.show(problems, func(w io.Writer) {
			for _, p := range problems {
				fmt.Fprintln(w, clean(sentence(p)))
			}
			if !wrong {
				fmt.Fprintln(w, "YAML is valid.")
			}
		})
		if err == nil && wrong {
			err = &exit{exitFailed, errors.New("")}
		}
		return err
	}}
	command.Flags().StringArrayVar(&policies, "policies", nil, "policy file that the manifests are held to, too, rendered here and as if nothing was deployed yet; may repeat")
	command.Flags().BoolVar(&strict, "strict", false, "count warnings as errors")
	return command
}

// validate is what is wrong with deployment files, and, where policy files are named, with what they deploy.
func (c *commandLine) validate(ctx context.Context, files, policies []string) ([]deployment.Problem, error) {
	set, wrong, err := readPolicies(policies)
	if err != nil || failed(wrong) {
		return wrong, err
	}
	problems := []deployment.Problem{}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		file, found := deployment.Parse(name, text)
		problems = append(problems, found...)
		if file == nil || len(policies) == 0 {
			continue
		}
		if found, err = c.judge(ctx, name, file, set); err != nil {
			return nil, err
		}
		problems = append(problems, found...)
	}
	return problems, nil
}

// sentence is a problem with its place, as editors know it.
func sentence(p deployment.Problem) string {
	text := fmt.Sprintf("%s:%d:%d: %s: %s", p.File, p.Line, p.Column, p.Severity, p.Text)
	if p.Suggestion != "" {
		text += "; did you mean " + p.Suggestion + "?"
	}
	return text
}

func failed(problems []deployment.Problem) bool {
	return slices.ContainsFunc(problems, func(p deployment.Problem) bool { return p.Severity == deployment.Error })
}

func (c *commandLine) schemaCommand() *cobra.Command {
	return &cobra.Command{Use: "schema", Short: "Print the JSON Schema of deployment files, for editors", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
		_, err := c.out.Write(deployment.Schema())
		return err
	}}
}

func (c *commandLine) renderCommand() *cobra.Command {
	var file, target string
	command := &cobra.Command{Use: "render -f FILE --target NAME", Short: "Print a target's manifests, as they would be deployed", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		w, err := c.openWorkspace(file)
		if err != nil {
			return err
		}
		defer w.close()
		parsed, problems := deployment.Parse(w.path, w.text)
		if parsed != nil && parsed.Target(target) == nil {
			return fmt.Errorf("%s has no target %q", file, target)
		}
		var result render.Result
		if parsed != nil {
			if result, err = w.pool.Render(cmd.Context(), render.Request{Tree: w.tree, File: parsed, Target: target}); err != nil {
				return err
			}
			problems = append(problems, result.Problems...)
		}
		c.warn(problems)
		if failed(problems) {
			return &exit{exitFailed, errors.New("")}
		}
		for _, o := range result.Objects {
			text, err := sigsyaml.JSONToYAML(o.JSON)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.out, "---\n# %s\n%s", o.Source, text)
		}
		return nil
	}}
	command.Flags().StringVarP(&file, "file", "f", "", "deployment file")
	command.Flags().StringVar(&target, "target", "", "name of a target")
	need(command, "file", "target")
	return command
}

func need(command *cobra.Command, names ...string) {
	for _, name := range names {
		if err := command.MarkFlagRequired(name); err != nil {
			panic(err) // the flag is there
		}
	}
}

// workspace is the directory tree in which a deployment file lies: from GITHUB_WORKSPACE, from the Git repository, or from the current directory on.
type workspace struct {
	root, path string // path of the file below root, with slashes
	text       []byte
	tree       *workTree
	pool       *render.Pool
}

func (c *commandLine) openWorkspace(file string) (*workspace, error) {
	w := &workspace{}
	absolute, err := c.locate(file)
	if err != nil {
		return nil, err
	}
	w.root = c.rootOf(filepath.Dir(absolute))
	below, err := filepath.Rel(w.root, absolute)
	if err != nil || strings.HasPrefix(below, "..") {
		return nil, fmt.Errorf("%s is not below %s", file, w.root)
	}
	w.path = filepath.ToSlash(below)
	if w.text, err = os.ReadFile(absolute); err != nil {
		return nil, err
	}
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if w.tree, err = openWorkTree(w.root); err != nil {
		return nil, err
	}
	w.pool = render.NewPool(render.Config{Program: []string{program, renderWorker}, Workers: 1, Fetcher: byController{}})
	return w, nil
}

func (w *workspace) close() {
	w.pool.Close()
	w.tree.Close()
}

// byController is where charts and files come from that are not in the workspace.
type byController struct{}

func (byController) Chart(context.Context, string, string, string, string) ([]byte, string, error) {
	return nil, "", errByController
}

func (byController) File(context.Context, string, string, string) ([]byte, string, error) {
	return nil, "", errByController
}

var errByController = errors.New("the controller brings it, from the hosts that it may call; to see what it comes to, run: towpath plan -f FILE")

// locate finds the file: in a GitHub job from its workspace, with or without a leading slash.
func (c *commandLine) locate(file string) (string, error) {
	if workspace := c.getenv("GITHUB_WORKSPACE"); workspace != "" {
		inside := filepath.Join(workspace, file)
		if _, err := os.Stat(inside); err == nil {
			return filepath.Abs(inside)
		}
	}
	absolute, err := filepath.Abs(file)
	if err == nil {
		_, err = os.Stat(absolute)
	}
	return absolute, err
}

// rootOf is the directory that manifest paths may also start at.
func (c *commandLine) rootOf(dir string) string {
	if workspace := c.getenv("GITHUB_WORKSPACE"); workspace != "" {
		if below, err := filepath.Rel(workspace, dir); err == nil && !strings.HasPrefix(below, "..") {
			return workspace
		}
	}
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, ".git")); err == nil {
			return at
		}
		if at == filepath.Dir(at) {
			return dir
		}
	}
}

// Limits of an upload.
const (
	maxFiles = 5000
	maxBytes = 64 << 20
)

// upload is the deployment file and the files that its renders read. What else is wrong with them is for the controller to say: it knows the cluster, and
// brings the charts and files that are elsewhere.
func (w *workspace) upload(ctx context.Context, u *api.Upload) ([]deployment.Problem, error) {
	parsed, problems := deployment.Parse(w.path, w.text)
	if parsed == nil {
		return problems, nil
	}
	parsed.Take(deployment.Flags{Application: u.Application, Account: u.Account, Targets: u.Targets, Context: u.Context}) // a path may hold what they say
	u.Path, u.Files = w.path, map[string][]byte{w.path: w.text}
	var size int64
	for _, t := range parsed.Targets {
		if len(parsed.TargetFilters) > 0 && !slices.Contains(parsed.TargetFilters, t.Name) {
			continue
		}
		result, err := w.pool.Render(ctx, render.Request{Tree: w.tree, File: parsed, Target: t.Name})
		if err != nil {
			return nil, err
		}
		for _, name := range result.Trace.Files() {
			if _, known := u.Files[name]; known {
				continue
			}
			info, err := w.tree.Stat(name)
			if err != nil {
				return nil, err
			}
			if size += info.Size(); size > maxBytes || len(u.Files) > maxFiles {
				return nil, fmt.Errorf("more than %d files or %d MiB are needed to render %s", maxFiles, maxBytes>>20, w.path)
			}
			if u.Files[name], err = fs.ReadFile(w.tree, name); err != nil {
				return nil, err
			}
		}
	}
	return problems, w.tree.refused
}

func (c *commandLine) initCommand() *cobra.Command {
	var name string
	command := &cobra.Command{Use: "init [DIR]", Short: "Write a commented deployment file for a folder of Helm, Kustomize or YAML", Args: cobra.MaximumNArgs(1), RunE: func(_ *cobra.Command, args []string) error {
		dir := "."
		if len(args) > 0 {
			dir = args[0]
		}
		file := filepath.Join(dir, "towpath.yaml")
		if _, err := os.Stat(file); err == nil {
			return fmt.Errorf("%s is there already", file)
		}
		absolute, err := filepath.Abs(dir)
		if err != nil {
			return err
		}
		source, err := manifestsIn(dir)
		if err != nil {
			return err
		}
		text := strings.NewReplacer("NAME", cmp.Or(name, filepath.Base(absolute)), "MANIFESTS", source).Replace(starter)
		if _, problems := deployment.Parse(file, []byte(text)); failed(problems) {
			return fmt.Errorf("the name %q makes no valid file: %s", cmp.Or(name, filepath.Base(absolute)), problems[0].Text)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return err
		}
		if strings.HasPrefix(source, nothingFound) {
			fmt.Fprintf(c.err, "no manifests, kustomization or chart lie in %s; write them into its folder manifests, or name another in the file\n", dir)
		}
		fmt.Fprintf(c.out, "%s is written; change its targets, then: towpath validate %s\n", file, file)
		return nil
	}}
	command.Flags().StringVarP(&name, "application", "n", "", "name of the application (the folder's)")
	return command
}

// nothingFound is the entry for a folder in which nothing lies.
const nothingFound = "- path: manifests"

// manifestsIn is the manifests entry that fits what lies in a folder.
func manifestsIn(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	var plain []string
	for _, e := range entries {
		switch name := e.Name(); {
		case name == "Chart.yaml":
			return "- helm: {path: .}                # the chart in this folder", nil
		case name == "kustomization.yaml", name == "kustomization.yml", name == "Kustomization":
			return "- kustomize: {path: .}           # the kustomization in this folder", nil
		case path.Ext(name) == ".yaml", path.Ext(name) == ".yml":
			plain = append(plain, "- path: "+name)
		}
	}
	if len(plain) == 0 {
		return nothingFound + "                # a file, or a folder and all below it", nil
	}
	return strings.Join(plain, "\n  "), nil
}

const starter = `# What is deployed, where, in which order, and how. Reference: towpath schema, docs/reference/deployment-file.md
version: v1
kind: kubernetes
application: "NAME"                # shown everywhere

targets:                           # a target is a namespace of a cluster
  staging:
    account: staging               # name of the agent in that cluster
    namespace: "NAME"
    strategy: rolling
  prod:
    account: prod
    namespace: "NAME"
    strategy: rolling
    constraints:
      dependsOn: [staging]         # starts once staging has succeeded

manifests:
  MANIFESTS

strategies:
  rolling:                         # everything at once, back by itself when it does not become ready
    canary:
      steps:
        - setWeight: {weight: 100}

deploymentConfig:
  timeout: {duration: 10, unit: minutes}
`
