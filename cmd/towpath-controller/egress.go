package main

import (
	"fmt"
	"os"
	"path/filepath"

	"towpath/cmd/towpath-controller/config"
	"towpath/internal/egress"
	"towpath/render/addresses"
	"towpath/render/charts"
	"towpath/store"
)

// newEgress is the way out of what deployment files name.
func newEgress(c config.Egress) (*egress.Client, error) {
	var ca []byte
	if c.CAFile != "" {
		var err error
		if ca, err = os.ReadFile(c.CAFile); err != nil {
			return nil, fmt.Errorf("egress.caFile: %w", err)
		}
	}
	return egress.New(egress.Config{AllowHosts: c.AllowHosts, AllowPrivate: c.AllowPrivate, RedirectTo: c.RedirectTo, CABundle: ca, Proxy: c.Proxy})
}

// fetcher brings what is not in a repository: only from the hosts that egress names, and pinned in the store.
type fetcher struct {
	*charts.Fetcher
	*addresses.Files
}

// Close ends what is under way: it would be kept in the store.
func (f *fetcher) Close() {
	f.Fetcher.Close()
	f.Files.Close()
}

// newFetcher keeps charts beside the mirrors.
func newFetcher(c *config.Config, client *egress.Client, s *store.Store) *fetcher {
	settings := charts.Config{HTTP: client.HTTP(), Pins: s, Dir: filepath.Join(c.Data, "charts"), CacheBytes: c.Charts.Cache << 20, ArchiveBytes: c.Charts.Archive << 20}
	for _, credential := range c.Charts.Credentials {
		settings.Credentials = append(settings.Credentials, charts.Credential(credential))
	}
	return &fetcher{charts.New(settings), addresses.New(addresses.Config{HTTP: client.HTTP(), Pins: s})}
}
