package main

import (
	"errors"
	"fmt"

	"towpath/cmd/towpath-controller/config"
	"towpath/render/sops"
)

// sopsKeys are the keys that open files of a source for an application; those of a push have no source.
func sopsKeys(all []config.SOPS, tenant, source, application string) (sops.Keys, error) {
	source = config.SourceOf(source)
	var files sops.KeyFiles
	for _, s := range all {
		if s.Tenant == tenant && anyOf(s.Sources, source) && anyOf(s.Applications, application) {
			files.Age, files.PGP = append(files.Age, s.AgeKeyFiles...), append(files.PGP, s.PGPKeyFiles...)
		}
	}
	return files.Read()
}

// checkSOPS says which files hold no key that could be used.
func checkSOPS(all []config.SOPS) error {
	var wrong []error
	for i, s := range all {
		if _, err := (sops.KeyFiles{Age: s.AgeKeyFiles, PGP: s.PGPKeyFiles}).Read(); err != nil {
			wrong = append(wrong, fmt.Errorf("sops[%d]: %w", i, err))
		}
	}
	return errors.Join(wrong...)
}
