package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/restmapper"

	"towpath/manifest"
)

// kinds knows which kinds a cluster serves, and under which paths. It asks when it is first needed, and again when a kind is not known: a
// CustomResourceDefinition may have come since. Safe for concurrent use.
type kinds struct {
	finder *discovery.DiscoveryClient
	within func(context.Context) (context.Context, context.CancelFunc) // the time of one request

	turn  chan struct{} // held while reading or asking, so that many who miss a kind ask once
	known *served
	asked int // how often the cluster was asked
}

// served is what a cluster said that it serves. It does not change.
type served struct {
	mapper meta.RESTMapper
	apis   []string                      // "apps/v1", "apps/v1/Deployment"
	failed map[schema.GroupVersion]error // what it could not tell
	kinds  map[schema.GroupKind][]string // → versions
	listed []schema.GroupKind            // that can be listed, sorted
}

func newKinds(finder *discovery.DiscoveryClient, within func(context.Context) (context.Context, context.CancelFunc)) *kinds {
	return &kinds{finder: finder, within: within, turn: make(chan struct{}, 1)}
}

// errNotServed says that the cluster knows no such kind; it is as it is until somebody changes the cluster.
var errNotServed = errors.New("the cluster does not serve it")

// mapping finds the resource of a kind; version "" means the one that the cluster prefers. The error is errNotServed when there is none.
func (k *kinds) mapping(ctx context.Context, key manifest.Key, version string) (*meta.RESTMapping, error) {
	known, asked, err := k.look(ctx, 0)
	if err != nil {
		return nil, err
	}
	mapping, err := known.mapping(key, version)
	if !errors.Is(err, errNotServed) {
		return mapping, err
	}
	if known, _, err = k.look(ctx, asked+1); err != nil {
		return nil, err
	}
	return known.mapping(key, version)
}

// look returns what the cluster serves, as it was told at the n-th asking or later.
func (k *kinds) look(ctx context.Context, n int) (*served, int, error) {
	select {
	case k.turn <- struct{}{}:
		defer func() { <-k.turn }()
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
	if k.known == nil || k.asked < n {
		ctx, cancel := k.within(ctx)
		defer cancel()
		known, err := ask(ctx, k.finder)
		if err != nil {
			return nil, 0, err
		}
		k.known = known
		k.asked++
	}
	return k.known, k.asked, nil
}

// forget makes the next look-up ask the cluster.
func (k *kinds) forget(ctx context.Context) error {
	select {
	case k.turn <- struct{}{}:
		k.known = nil
		<-k.turn
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func ask(ctx context.Context, finder *discovery.DiscoveryClient) (*served, error) {
	groups, lists, err := finder.ServerGroupsAndResourcesWithContext(ctx)
	var partial *discovery.ErrGroupDiscoveryFailed
	if err != nil && !errors.As(err, &partial) {
		return nil, err
	}
	s := &served{kinds: map[schema.GroupKind][]string{}}
	if partial != nil {
		s.failed = partial.Groups
	}
	resources := map[string][]metav1.APIResource{}
	for _, list := range lists {
		resources[list.GroupVersion] = list.APIResources
		s.apis = append(s.apis, list.GroupVersion)
		for _, resource := range list.APIResources {
			if strings.Contains(resource.Name, "/") {
				continue
			}
			s.apis = append(s.apis, list.GroupVersion+"/"+resource.Kind)
			gv, err := schema.ParseGroupVersion(list.GroupVersion)
			if err != nil {
				continue // a group that says its own name wrongly serves nothing that a manifest could name
			}
			kind := gv.WithKind(resource.Kind).GroupKind()
			s.kinds[kind] = append(s.kinds[kind], gv.String())
			if slices.Contains(resource.Verbs, "list") && !slices.Contains(s.listed, kind) {
				s.listed = append(s.listed, kind)
			}
		}
	}
	var all []*restmapper.APIGroupResources
	for _, group := range groups {
		one := &restmapper.APIGroupResources{Group: *group, VersionedResources: map[string][]metav1.APIResource{}}
		for _, version := range group.Versions {
			if list, found := resources[version.GroupVersion]; found {
				one.VersionedResources[version.Version] = list
			}
		}
		all = append(all, one)
	}
	s.mapper = restmapper.NewDiscoveryRESTMapper(all)
	slices.SortFunc(s.listed, func(a, b schema.GroupKind) int { return strings.Compare(a.String(), b.String()) })
	slices.Sort(s.apis)
	s.apis = slices.Compact(s.apis)
	return s, nil
}

func (s *served) mapping(key manifest.Key, version string) (*meta.RESTMapping, error) {
	kind := schema.GroupKind{Group: key.Group, Kind: key.Kind}
	var versions []string
	if version != "" {
		versions = append(versions, version)
	}
	mapping, err := s.mapper.RESTMapping(kind, versions...)
	if !meta.IsNoMatchError(err) {
		return mapping, err
	}
	for gv, why := range s.failed {
		if gv.Group == key.Group {
			return nil, fmt.Errorf("the cluster cannot tell now what it serves in %s: %w", gv, why)
		}
	}
	if others := s.kinds[kind]; len(others) > 0 {
		return nil, fmt.Errorf("%w as %s, only as %s", errNotServed, schema.GroupVersion{Group: key.Group, Version: version}, strings.Join(others, ", "))
	}
	if version == "" {
		return nil, errNotServed
	}
	return nil, fmt.Errorf("%w: it knows no kind %s in %s; is its CustomResourceDefinition missing?", errNotServed, key.Kind, schema.GroupVersion{Group: key.Group, Version: version})
}
