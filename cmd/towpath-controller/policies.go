package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"towpath/cmd/towpath-controller/config"
	"towpath/gitsource"
	"towpath/policies/rules"
	"towpath/reconcile"
)

// ruleSources is where the configuration takes rules from.
func ruleSources(c *config.Config) ([]reconcile.RuleSource, error) {
	var all []reconcile.RuleSource
	for i, p := range c.Policies {
		s := reconcile.RuleSource{For: p.Tenants, Source: p.Source, Paths: p.Paths}
		if p.File != "" {
			text, err := os.ReadFile(p.File)
			if err != nil {
				return nil, fmt.Errorf("policies[%d].file: %w", i, err)
			}
			set, problems := rules.Parse([]rules.File{{Path: p.File, Text: text}})
			if len(problems) > 0 {
				return nil, fmt.Errorf("policies[%d].file: %s:%d:%d: %s", i, p.File, problems[0].Line, problems[0].Column, told(problems[0]))
			}
			sum := sha256.Sum256(text)
			s.Rules, s.Digest = set, hex.EncodeToString(sum[:])
		} else {
			from := slices.IndexFunc(c.Sources, func(each config.Source) bool { return each.Name == p.Source })
			patterns, err := gitsource.NewPatterns(p.Paths)
			if err != nil {
				return nil, fmt.Errorf("policies[%d].paths: %w", i, err)
			}
			s.Tenant, s.Find = c.Sources[from].Tenant, func(tree fs.FS) ([]string, error) {
				t, ok := tree.(*gitsource.Tree)
				if !ok {
					return nil, fmt.Errorf("files of a %T cannot be listed", tree)
				}
				listing, err := gitsource.List(t, patterns, nil)
				if err != nil {
					return nil, err
				}
				return listing.Paths(), nil
			}
		}
		all = append(all, s)
	}
	return all, nil
}
