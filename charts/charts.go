// Package charts holds the charts that install Towpath, so that programs carry them along.
package charts

import (
	"embed"
	"io/fs"
	"strings"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
)

// Names of the charts.
const (
	Controller = "towpath"
	Agent      = "towpath-agent"
)

//go:embed all:towpath all:towpath-agent
var all embed.FS

// Load reads a chart by its name.
func Load(name string) (*chart.Chart, error) {
	var files []*loader.BufferedFile
	err := fs.WalkDir(all, name, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := all.ReadFile(path)
		files = append(files, &loader.BufferedFile{Name: strings.TrimPrefix(path, name+"/"), Data: text})
		return err
	})
	if err != nil {
		return nil, err
	}
	return loader.LoadFiles(files)
}
