// Package cluster does in one Kubernetes cluster what a rollout asks for: apply, scale, remove, read afresh, watch. It reaches the cluster through an
// http.RoundTripper and holds no rules about rollouts; what objects a Deployment object becomes is told by Revise, which is pure.
package cluster

import (
	"context"
	"net/http"
	"time"

	"github.com/sirupsen/logrus"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"towpath/manifest"
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
	// Parallel is the most requests that are under way at once, watches aside; 0: 64. How many they are at a time, from 1, follows what the API server answers.
	Parallel int
	// Timeout of one request that is no watch; 0: 20 s. An API server that says when to come back (429, 503) is asked again within it.
	Timeout time.Duration
	// MaxAnswer is how many bytes one answer may have; 0: 64 MiB.
	MaxAnswer int64
	Clock     func() time.Time // of breaker and limiter; nil: time.Now
	// Ignored is what is no drift.
	Ignored []Ignored
	Log     *logrus.Entry
}

// Client is one cluster. Safe for concurrent use.
type Client struct {
	dynamic *dynamic.DynamicClient
	finder  *discovery.DiscoveryClient
	kinds   *kinds
	reviser Reviser
	away    func(error) bool
	limiter *limiter
	breaker *breaker
	timeout time.Duration
	largest int64 // answer
	watches *watches
	prints  *prints
	census  census
	names   metadata.Interface
	ignored []Ignored
	clock   func() time.Time
}

// New makes a client; it sends nothing yet. Close it.
func New(c Config) (*Client, error) {
	if c.Parallel == 0 {
		c.Parallel = 64
	}
	if c.Timeout == 0 {
		c.Timeout = 20 * time.Second
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.MaxAnswer == 0 {
		c.MaxAnswer = 64 << 20
	}
	config := &rest.Config{Host: "http://kubernetes", QPS: -1, UserAgent: fieldManager, WarningHandler: rest.NoWarnings{}}
	limiter := newLimiter(&bounded{c.Transport, c.MaxAnswer}, c.Parallel, c.Clock, c.Log)
	breaker := &breaker{away: c.Away, next: limiter, clock: c.Clock}
	client := &http.Client{Transport: breaker}
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
	made := &Client{dynamic: objects, finder: finder, reviser: c.Reviser, away: c.Away, limiter: limiter, breaker: breaker, timeout: c.Timeout,
		largest: c.MaxAnswer, prints: &prints{}, names: names, census: census{make(chan struct{}, 1), map[manifest.Key]counted{}}, ignored: c.Ignored, clock: c.Clock}
	made.watches = newWatches(names, objects, made.prints, c.Log)
	made.kinds = newKinds(finder, made.within)
	return made, nil
}

// Close ends all watches; requests under way go on.
func (c *Client) Close() { c.watches.close() }

// Capabilities is the cluster's Kubernetes version and the APIs that it serves ("apps/v1", "apps/v1/Deployment"): what charts ask about.
func (c *Client) Capabilities(ctx context.Context) (version string, apis []string, err error) {
	known, _, err := c.kinds.look(ctx, 0)
	if err != nil {
		return "", nil, c.failure(manifest.Key{}, err)
	}
	ctx, cancel := c.within(ctx)
	defer cancel()
	info, err := c.finder.ServerVersionWithContext(ctx)
	if err != nil {
		return "", nil, c.failure(manifest.Key{}, err)
	}
	return info.GitVersion, known.apis, nil
}

// within is the time that one request has.
func (c *Client) within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, c.timeout)
}

// request runs one call to the cluster in one of its places, within its time.
func request[T any](ctx context.Context, c *Client, call func(context.Context) (T, error)) (T, error) {
	leave, err := c.limiter.enter(ctx)
	if err != nil {
		var none T
		return none, err
	}
	defer leave()
	ctx, cancel := c.within(ctx)
	defer cancel()
	return call(ctx)
}

// resource is the client of a kind in the key's namespace; version "" means the one that the cluster prefers.
func (c *Client) resource(ctx context.Context, key manifest.Key, version string) (client dynamic.ResourceInterface, namespaced bool, err error) {
	mapping, err := c.kinds.mapping(ctx, key, version)
	if err != nil {
		return nil, false, err
	}
	if mapping.Scope.Name() == meta.RESTScopeNameRoot {
		return c.dynamic.Resource(mapping.Resource), false, nil
	}
	return c.dynamic.Resource(mapping.Resource).Namespace(orDefault(key.Namespace)), true, nil
}

func orDefault(namespace string) string {
	if namespace == "" {
		return metav1.NamespaceDefault
	}
	return namespace
}
