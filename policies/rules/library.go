package rules

import (
	"embed"
	"fmt"
	"strings"

	"cel.dev/cel-go/cel"
)

//go:embed library/*.yaml
var library embed.FS

// needsTargets are the rules of the library that are about targets which only their user can name.
var needsTargets = []string{"two-replicas-in-production"}

// Library names the rules that policy files may use without writing them.
func Library() []string {
	entries, err := library.ReadDir("library")
	if err != nil {
		panic(err) // it is embedded
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = strings.TrimSuffix(e.Name(), ".yaml")
	}
	return names
}

// fromLibrary compiles a rule of the library.
func fromLibrary(base *cel.Env, name string) rule {
	path := "library/" + name + ".yaml"
	text, err := library.ReadFile(path)
	if err != nil {
		panic(err) // the name was looked up
	}
	r := &reader{file: path}
	all := r.policies(base, File{Path: path, Text: text})
	if len(r.problems) > 0 || len(all) != 1 {
		panic(fmt.Sprintf("%s: %v", path, r.problems)) // a test reads them all
	}
	return all[0]
}
