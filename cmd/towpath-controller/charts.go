package main

import (
	"fmt"
	"os"
	"path/filepath"

	"towpath/cmd/towpath-controller/config"
	"towpath/internal/egress"
	"towpath/render/charts"
	"towpath/store"
)

// newCharts brings charts from elsewhere: only from the hosts that egress names, pinned in the store, and kept beside the mirrors.
func newCharts(c *config.Config, s *store.Store) (*charts.Fetcher, error) {
	var ca []byte
	if c.Egress.CAFile != "" {
		var err error
		if ca, err = os.ReadFile(c.Egress.CAFile); err != nil {
			return nil, fmt.Errorf("egress.caFile: %w", err)
		}
	}
	client, err := egress.New(egress.Config{AllowHosts: c.Egress.AllowHosts, AllowPrivate: c.Egress.AllowPrivate, RedirectTo: c.Egress.RedirectTo, CABundle: ca, Proxy: c.Egress.Proxy})
	if err != nil {
		return nil, err
	}
	settings := charts.Config{HTTP: client.HTTP(), Pins: s, Dir: filepath.Join(c.Data, "charts"), CacheBytes: c.Charts.Cache << 20, ArchiveBytes: c.Charts.Archive << 20}
	for _, credential := range c.Charts.Credentials {
		settings.Credentials = append(settings.Credentials, charts.Credential(credential))
	}
	return charts.New(settings), nil
}
