package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"towpath/cmd/towpath-controller/config"
	"towpath/internal/egress"
	"towpath/render/addresses"
	"towpath/render/charts"
	"towpath/render/once"
	"towpath/store"
)

// outside brings what deployment files name and their repositories do not hold, and calls whom they name: for each tenant by its own rules. Safe for concurrent use.
type outside struct {
	config *config.Config
	store  *store.Store
	ca     []byte

	mu      sync.Mutex
	tenants map[string]*wayOut // nil: closed
}

// wayOut is a tenant's.
type wayOut struct {
	client *egress.Client
	charts *charts.Fetcher
	files  *addresses.Files
}

// openOutside fails where the configuration could let nobody out.
func openOutside(c *config.Config, s *store.Store) (*outside, error) {
	o := &outside{config: c, store: s, tenants: map[string]*wayOut{}}
	if c.Egress.CAFile != "" {
		var err error
		if o.ca, err = os.ReadFile(c.Egress.CAFile); err != nil {
			return nil, fmt.Errorf("egress.caFile: %w", err)
		}
	}
	if _, err := o.of(""); err != nil { // nobody's: the rules for all
		return nil, err
	}
	for _, t := range c.Egress.Tenants {
		if _, err := o.of(t.Name); err != nil {
			return nil, fmt.Errorf("egress.tenants: %s: %w", t.Name, err)
		}
	}
	return o, nil
}

// of is the way of a tenant.
func (o *outside) of(tenant string) (*wayOut, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if way := o.tenants[tenant]; way != nil {
		return way, nil
	}
	if o.tenants == nil {
		return nil, errors.New("nobody is called any more: this controller ends")
	}
	hosts, private, own := o.config.Egress.Of(tenant)
	archive := o.config.Charts.Archive << 20
	client, err := egress.New(egress.Config{AllowHosts: hosts, AllowPrivate: private, RedirectTo: o.config.Egress.RedirectTo, CABundle: o.ca, Proxy: o.config.Egress.Proxy,
		MaxResponseBytes: max(64<<20, archive), Tenant: tenant})
	if err != nil {
		return nil, err
	}
	settings := charts.Config{HTTP: client.HTTP(), Dir: filepath.Join(o.config.Data, "charts"), CacheBytes: o.config.Charts.Cache << 20, ArchiveBytes: archive}
	for _, c := range o.config.Charts.Credentials {
		if len(c.Tenants) == 0 || slices.Contains(c.Tenants, tenant) {
			settings.Credentials = append(settings.Credentials, charts.Credential{URL: c.URL, Username: c.Username, PasswordFile: c.PasswordFile})
			own = own || len(c.Tenants) > 0
		}
	}
	settings.Pins = o.store
	if own {
		settings.Pins = tenantPins{o.store, tenant}
	}
	way := &wayOut{client, charts.New(settings), addresses.New(addresses.Config{HTTP: client.HTTP(), Pins: o.store})}
	o.tenants[tenant] = way
	return way, nil
}

// Chart is a chart, as it came to this tenant.
func (o *outside) Chart(ctx context.Context, tenant, repository, chart, version string) (archive []byte, digest string, err error) {
	way, err := o.of(tenant)
	if err != nil {
		return nil, "", err
	}
	return way.charts.Chart(ctx, repository, chart, version)
}

// File is what stands at an address, as it came to this tenant.
func (o *outside) File(ctx context.Context, tenant, pin, address string) (text []byte, digest string, err error) {
	way, err := o.of(tenant)
	if err != nil {
		return nil, "", err
	}
	return way.files.File(ctx, pin, address)
}

// Close ends what is under way: it would be kept in the store.
func (o *outside) Close() {
	o.mu.Lock()
	ways := o.tenants
	o.tenants = nil
	o.mu.Unlock()
	for _, way := range ways {
		way.charts.Close()
		way.files.Close()
		way.client.Close()
	}
}

// tenantPins keeps the pins of a tenant's charts apart where it reaches more than others: all archives lie in one directory, and what a tenant finds there is what
// its own pins name. Tenants that reach the same share pins. Those of addresses have the tenant in their names.
type tenantPins struct {
	once.Pins
	tenant string
}

func (p tenantPins) name(name string) string { return "tenant:" + p.tenant + ":" + name }

func (p tenantPins) Kept(ctx context.Context, name string) ([]byte, bool, error) {
	return p.Pins.Kept(ctx, p.name(name))
}

func (p tenantPins) Keep(ctx context.Context, name string, content []byte) ([]byte, error) {
	return p.Pins.Keep(ctx, p.name(name), content)
}
