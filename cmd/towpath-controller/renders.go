package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"

	"towpath/cluster"
	"towpath/cmd/towpath-controller/config"
	"towpath/deployment"
	"towpath/manifest"
	"towpath/reconcile"
	"towpath/reconcile/rollout"
	"towpath/render"
	"towpath/render/sops"
)

// renders makes manifests in the pool's processes, and refuses what could not be deployed.
type renders struct {
	pool         *render.Pool
	reviser      cluster.Reviser
	capabilities func(tenant, account string) render.Capabilities
	keys         []config.SOPS
}

func (r *renders) Render(ctx context.Context, request reconcile.RenderRequest) (rollout.RenderRecord, error) {
	target := request.File.Target(request.Target)
	asked := render.Request{Tree: request.Tree, File: request.File, Target: request.Target, Tenant: request.Tenant, Pin: pin(request),
		Cluster: r.capabilities(request.Tenant, target.Account)}
	if !request.Masked {
		asked.Keys = func() (sops.Keys, error) {
			return sopsKeys(r.keys, request.Tenant, request.Source, request.File.Application)
		}
	}
	result, err := r.pool.Render(ctx, asked)
	if err != nil {
		return rollout.RenderRecord{}, err
	}
	record := rollout.RenderRecord{Trace: result.Trace.Text(), Problems: result.Problems}
	if result.Failed() {
		return record, nil
	}
	if slices.ContainsFunc(result.Objects, func(o manifest.Object) bool { return o.Group == "apps" && o.Kind == "Deployment" }) {
		record.Problems = append(record.Problems, request.File.CheckStrategy(request.Target)...)
	}
	id := rollout.Identity{Tenant: request.Tenant, Application: request.File.Application, Target: request.Target, Account: target.Account, Namespace: target.Namespace}
	if _, err := r.reviser.Revise(id, result.Objects); err != nil {
		record.Problems = append(record.Problems, deployment.Problem{File: request.File.Path, Field: "targets." + target.Name, Line: max(target.Position.Line, 1),
			Column: max(target.Position.Column, 1), Severity: deployment.Error, Text: err.Error()})
	}
	if !record.Failed() {
		record.Manifests, record.Objects = result.Digest, result.Objects
		if record.Objects == nil {
			record.Objects = []manifest.Object{}
		}
	}
	return record, nil
}

// pin names what is fetched for a file: once for each text of a file in Git, whatever renders it and when, so that a pull request, the merge, and the proof of what
// is recorded come to the same; once for each plan of an upload.
func pin(r reconcile.RenderRequest) string {
	sum := sha256.Sum256(r.Text)
	return strings.Join([]string{r.Tenant, r.Source, r.Plan, r.File.Path, hex.EncodeToString(sum[:])}, "\x00")
}

// traces keeps the recorded renders of all sources, and finds those that a change touches.
type traces struct {
	capabilities func(tenant, account string) render.Capabilities

	mu      sync.Mutex
	sources map[string]*sourceTraces
}

type sourceTraces struct {
	index   *render.Index[renderName]
	records map[renderName]rollout.RenderRecord
}

type renderName struct{ path, target string }

func (t *traces) of(source string) *sourceTraces {
	if t.sources == nil {
		t.sources = map[string]*sourceTraces{}
	}
	if t.sources[source] == nil {
		t.sources[source] = &sourceTraces{render.NewIndex[renderName](), map[renderName]rollout.RenderRecord{}}
	}
	return t.sources[source]
}

func (t *traces) Load(source string, records []rollout.RenderRecord) error {
	t.mu.Lock()
	delete(t.sources, source)
	t.mu.Unlock()
	return t.Put(source, records)
}

func (t *traces) Put(source string, records []rollout.RenderRecord) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.of(source)
	for _, r := range records {
		trace, err := render.ParseTrace(r.Trace)
		if err != nil {
			return err
		}
		name := renderName{r.Path, r.Target}
		s.index.Put(name, trace)
		r.Objects, r.Trace = nil, nil
		s.records[name] = r
	}
	return nil
}

func (t *traces) Drop(source, path string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.of(source)
	for name := range s.records {
		if name.path == path {
			s.index.Drop(name)
			delete(s.records, name)
		}
	}
}

func (t *traces) Some(source string, share float64) map[string][]string {
	t.mu.Lock()
	defer t.mu.Unlock()
	names := slices.Collect(maps.Keys(t.of(source).records))
	rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	return byPath(names[:int(math.Ceil(share*float64(len(names))))])
}

func (t *traces) Recorded(source, path, target string) (rollout.RenderRecord, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	record, found := t.of(source).records[renderName{path, target}]
	return record, found
}

func (t *traces) Dirty(source string, tree fs.FS, changed []string) map[string][]string {
	return byPath(t.index(source).Dirty(tree, changed))
}

func (t *traces) Differing(source string, tree fs.FS) map[string][]string {
	return byPath(t.index(source).Differing(tree))
}

func (t *traces) Stale(tenant, source string) map[string][]string {
	return byPath(t.index(source).Stale(func(account string) render.Capabilities { return t.capabilities(tenant, account) }))
}

func (t *traces) index(source string) *render.Index[renderName] {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.of(source).index
}

func byPath(names []renderName) map[string][]string {
	targets := map[string][]string{}
	for _, name := range names {
		targets[name.path] = append(targets[name.path], name.target)
	}
	return targets
}
