package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"towpath/deployment"
	"towpath/policies/rules"
	"towpath/render"
)

// readPolicies compiles policy files.
func readPolicies(names []string) (rules.Set, []deployment.Problem, error) {
	files := make([]rules.File, len(names))
	for i, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return rules.Set{}, nil, err
		}
		files[i] = rules.File{Path: name, Text: text}
	}
	set, problems := rules.Parse(files)
	return set, problems, nil
}

// judge renders the targets of a deployment file here, and holds them to rules as if nothing was deployed yet.
func (c *commandLine) judge(ctx context.Context, name string, file *deployment.File, set rules.Set) ([]deployment.Problem, error) {
	w, err := c.openWorkspace(name)
	if err != nil {
		return nil, err
	}
	defer w.close()
	here := *file
	here.Path = w.path
	var problems []deployment.Problem
	for _, t := range file.Chosen() {
		result, err := w.pool.Render(ctx, render.Request{Tree: w.tree, File: &here, Target: t.Name})
		if err != nil {
			return nil, err
		}
		at := deployment.Problem{File: name, Field: "targets." + t.Name, Line: t.Position.Line, Column: t.Position.Column}
		for _, p := range result.Problems {
			if strings.Contains(p.Text, errByController.Error()) {
				p.Severity, p.Text = deployment.Warning, "target "+t.Name+" is not held to the rules here: "+p.Text
			}
			p.File = cmp.Or(strings.Replace(p.File, w.path, name, 1), name)
			if !slices.Contains(problems, p) {
				problems = append(problems, p)
			}
		}
		for i := range result.Objects {
			for _, f := range set.Judge(rules.Case{Operation: rules.Apply, Object: &result.Objects[i], Application: file.Application,
				Target: rules.Target{Name: t.Name, Account: t.Account, Namespace: t.Namespace}}) {
				at.Severity, at.Text = f.Severity, f.Sentence()
				problems = append(problems, at)
			}
		}
	}
	return problems, nil
}

func (c *commandLine) policyCommand() *cobra.Command {
	policy := &cobra.Command{Use: "policy", Short: "Rules on manifests"}
	policy.AddCommand(&cobra.Command{Use: "test [FILE…]", Short: "Hold the cases of test files to their rules; without FILE, those of *_test.yaml here and in the folder policies",
		RunE: func(_ *cobra.Command, files []string) error {
			if len(files) == 0 {
				for _, pattern := range []string{"*_test.y*ml", "policies/*_test.y*ml"} {
					found, err := filepath.Glob(pattern)
					if err != nil {
						return err
					}
					files = append(files, found...)
				}
			}
			if len(files) == 0 {
				return errors.New("no test file: there is no *_test.yaml here or in the folder policies; name one")
			}
			return c.testPolicies(files)
		}})
	return policy
}

// tested is what came of the cases of a file.
type tested struct {
	File     string               `json:"file"`
	Cases    int                  `json:"cases"`
	Problems []deployment.Problem `json:"problems,omitempty"` // of it, or of its rules: nothing was tried
	Failed   []differing          `json:"failed,omitempty"`
}

// differing is a case that did not come to what it expects.
type differing struct {
	Name    string   `json:"name"`
	Line    int      `json:"line"`
	Differs []string `json:"differs"`
}

func (c *commandLine) testPolicies(files []string) error {
	var all []tested
	good := true
	for _, file := range files {
		t, err := testPolicy(file)
		if err != nil {
			return err
		}
		good = good && len(t.Problems)+len(t.Failed) == 0
		all = append(all, t)
	}
	err := c.show(all, func(w io.Writer) {
		for _, t := range all {
			for _, p := range t.Problems {
				fmt.Fprintln(w, clean(sentence(p)))
			}
			for _, d := range t.Failed {
				fmt.Fprintf(w, "%s:%d: %s\n", t.File, d.Line, clean(d.Name))
				for _, line := range d.Differs {
					fmt.Fprintln(w, "  "+clean(line))
				}
			}
			if len(t.Problems) == 0 {
				fmt.Fprintf(w, "%s: %d of %d cases are as expected\n", t.File, t.Cases-len(t.Failed), t.Cases)
			}
		}
	})
	if err == nil && !good {
		err = &exit{exitFailed, errors.New("")}
	}
	return err
}

// testPolicy holds the cases of one file to the rules that it names.
func testPolicy(file string) (tested, error) {
	t := tested{File: file}
	text, err := os.ReadFile(file)
	if err != nil {
		return t, err
	}
	tests, problems := rules.ParseTests(file, text)
	if t.Problems = problems; len(problems) > 0 {
		return t, nil
	}
	named := make([]string, len(tests.Policies))
	for i, name := range tests.Policies {
		named[i] = filepath.Join(filepath.Dir(file), filepath.FromSlash(name))
	}
	set, problems, err := readPolicies(named)
	if t.Problems = problems; err != nil || len(problems) > 0 {
		return t, err
	}
	t.Cases = len(tests.Cases)
	for _, each := range tests.Cases {
		if lines := set.Differs(each); len(lines) > 0 {
			t.Failed = append(t.Failed, differing{each.Name, each.Line, lines})
		}
	}
	return t, nil
}
