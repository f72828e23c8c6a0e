// Package cluster does in one Kubernetes cluster what a rollout asks for: apply, scale, remove, read afresh, watch. It reaches the cluster through an
// http.RoundTripper and holds no rules about rollouts; what objects a Deployment object becomes is told by Revise, which is pure.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// fieldManager is who we are to server-side apply.
const fieldManager = "towpath"

// Config of a Client.
type Config struct {
	// Transport carries requests to the API server; it adds what authenticates them. Scheme and host of a request's URL mean nothing to it.
	Transport http.RoundTripper
	// Reviser says which objects a target's manifests become.
	Reviser Reviser
	// Away reports whether an error means that no way to the cluster exists now, so that waiting is all that can be done.
	Away func(error) bool
	// Parallel is how many requests are under way at once; 0: 16.
	Parallel int
	// Timeout of one request that is no watch; 0: 20 s.
	Timeout time.Duration
	Log     *logrus.Entry
}

// Client is one cluster. Safe for concurrent use.
type Client struct {
	dynamic   *dynamic.DynamicClient
	metadata  metadata.Interface
	discovery *discovery.DiscoveryClient
	cached    discovery.CachedDiscoveryInterface
	mapper    *restmapper.DeferredDiscoveryRESTMapper
	reviser   Reviser
	away      func(error) bool
	slots     chan struct{}
	timeout   time.Duration
	log       *logrus.Entry
	watches   *watches

	mu sync.Mutex // of mapper resets
}

// New makes a client; it sends nothing yet.
func New(c Config) (*Client, error) {
	if c.Parallel == 0 {
		c.Parallel = 16
	}
	if c.Timeout == 0 {
		c.Timeout = 20 * time.Second
	}
	config := &rest.Config{Host: "http://kubernetes", Transport: c.Transport, QPS: -1, UserAgent: fieldManager}
	config.ContentType = "application/json"
	client := &http.Client{Transport: c.Transport}
	objects, err := dynamic.NewForConfigAndClient(config, client)
	if err != nil {
		return nil, err
	}
	finder, err := discovery.NewDiscoveryClientForConfigAndClient(config, client)
	if err != nil {
		return nil, err
	}
	names, err := metadata.NewForConfigAndClient(metadata.ConfigFor(config), client)
	if err != nil {
		return nil, err
	}
	cached := memory.NewMemCacheClient(finder)
	return &Client{dynamic: objects, metadata: names, discovery: finder, cached: cached, mapper: restmapper.NewDeferredDiscoveryRESTMapper(cached), reviser: c.Reviser,
		away: c.Away, slots: make(chan struct{}, c.Parallel), timeout: c.Timeout, log: c.Log, watches: newWatches(names, c.Log)}, nil
}

// Close ends all watches.
func (c *Client) Close() { c.watches.close() }

// Capabilities is the cluster's Kubernetes version and the APIs that it serves ("apps/v1", "apps/v1/Deployment"): what charts ask about.
func (c *Client) Capabilities(ctx context.Context) (version string, apis []string, err error) {
	info, err := c.discovery.ServerVersion()
	if err != nil {
		return "", nil, c.failure(manifest.Key{}, err)
	}
	_, resources, err := c.cached.ServerGroupsAndResources()
	if err != nil && len(resources) == 0 {
		return "", nil, c.failure(manifest.Key{}, err)
	}
	for _, group := range resources {
		apis = append(apis, group.GroupVersion)
		for _, resource := range group.APIResources {
			apis = append(apis, group.GroupVersion+"/"+resource.Kind)
		}
	}
	return info.GitVersion, apis, nil
}

// slot waits for one of the cluster's places; release gives it back.
func (c *Client) slot(ctx context.Context) (release func(), err error) {
	select {
	case c.slots <- struct{}{}:
		return func() { <-c.slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// mapping finds the resource of a kind. A kind that is not known is asked for anew once: a CRD may have been applied since.
func (c *Client) mapping(group, kind, version string) (*meta.RESTMapping, error) {
	versions := []string{}
	if version != "" {
		versions = append(versions, version)
	}
	mapping, err := c.mapper.RESTMapping(schema.GroupKind{Group: group, Kind: kind}, versions...)
	if !meta.IsNoMatchError(err) {
		return mapping, err
	}
	c.forget()
	return c.mapper.RESTMapping(schema.GroupKind{Group: group, Kind: kind}, versions...)
}

// forget makes the next look-up ask the cluster which kinds it serves.
func (c *Client) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cached.Invalidate()
	c.mapper.Reset()
}

// resource is the client of a kind in the key's namespace.
func (c *Client) resource(key manifest.Key, version string) (dynamic.ResourceInterface, error) {
	mapping, err := c.mapping(key.Group, key.Kind, version)
	if err != nil {
		return nil, err
	}
	if mapping.Scope.Name() == meta.RESTScopeNameRoot {
		return c.dynamic.Resource(mapping.Resource), nil
	}
	return c.dynamic.Resource(mapping.Resource).Namespace(orDefault(key.Namespace)), nil
}

func orDefault(namespace string) string {
	if namespace == "" {
		return metav1.NamespaceDefault
	}
	return namespace
}

// failure sorts an error by what can be done about it, with the API server's own words.
func (c *Client) failure(key manifest.Key, err error) *rollout.Failure {
	var known *rollout.Failure
	if errors.As(err, &known) {
		return known
	}
	f := &rollout.Failure{Class: rollout.Trouble, Object: key, Text: err.Error()}
	switch {
	case c.away != nil && c.away(err):
		f.Class = rollout.Away
	case meta.IsNoMatchError(err):
		f.Class, f.Text = rollout.Refused, fmt.Sprintf("the cluster serves no %s; is its CustomResourceDefinition there?", kindName(key))
	case apierrors.IsConflict(err), apierrors.IsTooManyRequests(err), apierrors.IsServerTimeout(err), apierrors.IsTimeout(err), apierrors.IsInternalError(err),
		apierrors.IsServiceUnavailable(err), apierrors.IsUnauthorized(err):
	case isStatus(err):
		f.Class = rollout.Refused
	}
	return f
}

func kindName(key manifest.Key) string {
	if key.Group == "" {
		return key.Kind
	}
	return key.Kind + "." + key.Group
}

func isStatus(err error) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status) && status.Status().Code >= 400 && status.Status().Code < 500
}
