package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/sirupsen/logrus"

	"towpath/agent/hub"
	"towpath/api"
	"towpath/cluster"
	"towpath/cmd/towpath-controller/config"
	"towpath/gitsource"
	"towpath/issuer"
	"towpath/preview"
	"towpath/reconcile"
	"towpath/reconcile/rollout"
	"towpath/render"
	"towpath/status"
	"towpath/store"
)

// Main is the controller. New does no I/O, Run returns once it serves (its context bounds the start only), Close drains and may be called twice.
type Main struct {
	config *config.Config
	log    *logrus.Entry

	store        *store.Store
	issuer       *issuer.Issuer
	hub          *hub.Hub
	replicas     *replicas // nil: this controller serves only agents that are connected to it
	verifiers    hub.Issuers
	clusters     *clusters
	providers    *metricProviders
	capabilities *capabilities
	pool         *render.Pool
	runner       *reconcile.Runner
	timers       *reconcile.Timers
	keeper       *reconcile.Keeper
	intake       *reconcile.Intake
	rules        *reconcile.Rulebook
	caller       *reconcile.Caller
	outside      *outside
	callbackKey  []byte // signs the tokens that webhooks call back with
	pusher       *reconcile.Pusher
	apps         gitHubApps
	proposals    *reconcile.Proposals
	proposed     proposed
	forges       map[string]*status.GitHub // by source; guarded by mu
	tellers      status.Tellers
	registry     *prometheus.Registry
	proofs       proofs

	// Rebuild makes the controller of an empty database find out what runs before it does anything.
	Rebuild bool

	began      time.Time // Run
	Address    string    // of the API, once Run returned
	HubAddress string    // of the hub
	// PreviewAddress is that of links to Services; "": they are not served.
	PreviewAddress string

	server   *http.Server
	previews *http.Server // nil: none are served
	tasks    sync.WaitGroup
	running  context.Context // of all that goes on until Close
	cancel   context.CancelFunc
	serves   chan struct{} // closed once the API is served
	done     chan struct{} // closed by Close
	// observing: the database was lost, and until a person says so nothing but reading is done. The database's word counts; this is what was made of it last.
	observing atomic.Bool
	late      time.Duration // a wake may lie so long before the controller is not ready
	mu        sync.Mutex
	sources   map[string]*source
	people    []config.Role
	latest    *config.Config // whose sources and roles are taken on
	closed    bool
}

// New makes a controller of a configuration.
func New(c *config.Config, log *logrus.Entry) *Main {
	return &Main{config: c, log: log, sources: map[string]*source{}, registry: prometheus.NewRegistry(), proofs: newProofs(), late: time.Minute, serves: make(chan struct{}), done: make(chan struct{})}
}

// leaseLasts exceeds what a request to a cluster may take; a lane whose holder died waits so long where several controllers share a database.
const leaseLasts = time.Minute

// Run opens everything and returns once the controller serves. When it fails, Close is still to be called.
func (m *Main) Run(ctx context.Context) error {
	m.running, m.cancel = context.WithCancel(context.WithoutCancel(ctx))
	m.began = time.Now()
	keys, err := m.config.Keys()
	if err != nil {
		return err
	}
	database, err := m.config.DatabaseURL()
	if err != nil {
		return err
	}
	if m.store, err = store.Open(ctx, store.Config{URL: database, Keys: keys, Log: m.log}); err != nil {
		return err
	}
	if err := m.lookBack(ctx); err != nil {
		return err
	}
	served, err := m.certificates()
	if err != nil {
		return err
	}
	if err := m.openIssuer(ctx); err != nil {
		return err
	}
	if err := m.openHub(keys); err != nil {
		return err
	}
	if err := m.openEngine(ctx); err != nil {
		return err
	}
	if err := m.Reload(m.config); err != nil {
		return err
	}
	if err := m.work(m.running); err != nil {
		return err
	}
	return m.listen(served)
}

// lookBack finds whether the database was lost.
func (m *Main) lookBack(ctx context.Context) error {
	if m.Rebuild {
		if err := m.store.Observe(ctx); err != nil {
			return err
		}
	}
	on, err := m.store.Observing(ctx)
	if on {
		m.log.Warn(observes)
	}
	m.observing.Store(on)
	return err
}

func (m *Main) openIssuer(ctx context.Context) (err error) {
	m.issuer, err = issuer.New(issuer.Config{URL: m.config.ExternalURL, Audience: m.config.Agents.Audience, Store: issuerStore{m.store, m.apiClient}})
	if err == nil {
		err = m.issuer.Rotate(ctx)
	}
	return err
}

func (m *Main) openHub(keys [][]byte) error {
	own, err := hub.NewVerifier(hub.VerifierConfig{Issuer: m.config.ExternalURL, Audience: m.config.Agents.Audience, Keys: m.issuer, Lookup: m.lookUp})
	if err != nil {
		return err
	}
	m.verifiers = hub.Issuers{own}
	for _, elsewhere := range m.config.Agents.Issuers {
		v, err := m.verifier(elsewhere)
		if err != nil {
			return err
		}
		m.verifiers = append(m.verifiers, v)
	}
	settings := hub.Config{Log: m.log, Admit: m.admit, Changed: m.agentChanged, Ended: m.agentEnded, Verify: m.verifiers.Verify}
	if m.config.Peers.Listen != "" {
		authority, err := hub.NewAuthority(keys, time.Now)
		if err != nil {
			return err
		}
		m.replicas = newReplicas(m.store, m.log)
		m.replicas.changed, m.replicas.looked, m.replicas.moved, m.replicas.died = m.agentChanged, m.keepWatched, m.lanesMoved, m.takeUp
		settings.Changed, settings.Peers = m.replicas.note, &hub.Peers{Directory: m.replicas, Authority: authority}
	}
	if m.hub, err = hub.New(settings); err == nil && m.replicas != nil {
		m.replicas.hub = m.hub
	}
	return err
}

// keepWatched holds those clusters to what was last proved good that are this replica's to watch, and learns what clusters can do from others.
func (m *Main) keepWatched(ctx context.Context, watched map[[2]string]string) error {
	for agent, by := range watched {
		if by != m.replicas.self.ID || m.observing.Load() {
			m.keeper.Leave(agent[0], agent[1])
		} else {
			m.keeper.Keep(m.running, agent[0], agent[1])
		}
	}
	return m.capabilities.load(ctx)
}

// lanesMoved has clusters held to what other replicas have brought about on lanes.
func (m *Main) lanesMoved(lanes []int64) {
	for _, lane := range lanes {
		m.keeper.Settled(lane)
	}
}

// agentEnded records why an agent is away.
func (m *Main) agentEnded(s hub.Status, why string) {
	m.tasks.Go(func() {
		if m.hub.Connected(s.Tenant, s.Agent) {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := m.store.AgentLeft(ctx, s.Tenant, s.Agent, why); err != nil {
			m.log.WithError(err).WithField("agent", s.Agent).Error("why an agent is away could not be recorded")
		}
	})
}

// agentChanged wakes what waits for an agent, or runs through it.
func (m *Main) agentChanged(tenant, agent string) {
	m.tasks.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if m.hub.Connected(tenant, agent) {
			if err := m.store.AgentCame(ctx, tenant, agent); err != nil {
				m.log.WithError(err).WithField("agent", agent).Error("that an agent is there could not be recorded")
			}
		}
		if err := m.store.WakeAccount(ctx, tenant, agent); err != nil {
			m.log.WithError(err).WithField("agent", agent).Error("lanes could not be woken for an agent that came or went; their timers will")
		}
		if m.hub.Has(tenant, agent) { // else another replica looks
			m.capabilities.lookOrSay(m.running, tenant, agent)
		}
	})
	if m.observing.Load() {
		m.wakeSources(tenant)
	} else if m.keeper != nil && m.replicas == nil && m.hub.Connected(tenant, agent) { // among replicas, keepWatched says whose it is
		m.keeper.Keep(m.running, tenant, agent)
	}
}

// wakeSources has the files of a tenant looked at: what they are rendered for has changed.
func (m *Main) wakeSources(tenant string) {
	m.wake("a cluster", func(c config.Source) bool { return c.Tenant == tenant })
}

// rulesChanged has the files of all sources looked at: what was refused may pass now.
func (m *Main) rulesChanged() {
	m.wake("the rules", func(config.Source) bool { return true })
}

// wake wakes sources after something changed.
func (m *Main) wake(changed string, which func(config.Source) bool) {
	var names []string
	m.mu.Lock()
	for name, s := range m.sources {
		if which(s.config) {
			names = append(names, name)
		}
	}
	m.mu.Unlock()
	for _, name := range names {
		if err := m.store.WakeSource(m.running, name); err != nil && m.running.Err() == nil {
			m.log.WithError(err).WithField("source", name).Errorf("a source could not be woken after %s changed; its schedule will", changed)
		}
	}
}

func (m *Main) openEngine(ctx context.Context) error {
	key, err := m.store.NamingKey(ctx)
	if err != nil {
		return err
	}
	reviser := cluster.Reviser{Key: key}
	m.clusters = &clusters{hub: m.hub, reviser: reviser, ignored: ignored(m.config.Drift.Ignore), log: m.log}
	m.capabilities = &capabilities{store: m.store, clusters: m.clusters, changed: m.wakeSources, log: m.log}
	if err := m.capabilities.load(ctx); err != nil {
		return err
	}
	if m.outside, err = openOutside(m.config, m.store); err != nil {
		return err
	}
	if m.callbackKey, err = m.store.Derived("towpath callbacks"); err != nil {
		return err
	}
	m.caller = &reconcile.Caller{Store: m.store, Webhook: m.callWebhook, Measure: m.measure, Clock: time.Now}
	if m.providers, err = newMetricProviders(m.config.MetricProviders, m.hub); err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	m.pool = render.NewPool(render.Config{Program: []string{program, renderWorker}, Workers: m.config.Render.Workers, Fetcher: m.outside, Firsts: m.store,
		Limits: render.Limits{Memory: m.config.Render.Memory << 20, Time: m.config.Render.Timeout}})
	m.rules = &reconcile.Rulebook{Store: m.store, Changed: m.rulesChanged}
	planner := &reconcile.Planner{Store: m.store, Renders: &renders{m.pool, reviser, m.capabilities.of, m.config.SOPS}, Clock: time.Now, NewID: newID, NotSelf: m.config.Approvals.ForbidSelf, Previews: m.config.Previews.Listen != "",
		Roles: m.heldRoles, Names: reviser.Names, Live: m.clusters.live, Routes: m.clusters.routes, Webhook: m.mayCall, Provider: m.mayAsk, Rules: m.rules.InForce}
	m.timers = reconcile.NewTimers(m.store, time.Now, m.log)
	m.runner = &reconcile.Runner{Lanes: m.store, Clusters: m.clusters, Timers: m.timers, Clock: time.Now, Log: m.log, Lease: leaseLasts, Names: reviser.Names,
		Limits: rollout.Limits{Removals: m.config.Prune.Removals, Shrink: m.config.Prune.Shrink, Keep: m.config.Revisions.Keep,
			Replaced: m.config.Rollouts.Replaced, Yield: m.config.Rollouts.Yield, Away: m.config.Rollouts.Away}}
	m.keeper = &reconcile.Keeper{Store: m.store, Runner: m.runner, Cluster: m.clusters.kept, Log: m.log}
	m.runner.Settled, m.runner.Earlier = m.keeper.Settled, m.earlier
	m.intake = &reconcile.Intake{Store: m.store, Planner: planner, Traces: &traces{capabilities: m.capabilities.of}, Rules: m.rules, Observe: m.sight, Clock: time.Now, Log: m.log}
	m.proposals = &reconcile.Proposals{Store: m.store, Intake: m.intake, Rehearse: m.clusters.rehearse, Limits: m.runner.Limits}
	m.pusher = &reconcile.Pusher{Store: m.store, Planner: planner, Reach: reach(m.config.Push.Allow), Clock: time.Now,
		Tree: func(files map[string][]byte) (fs.FS, error) { return gitsource.NewTree(files, gitsource.Limits{}) }}
	return nil
}

// newID is the id of a deployment: later ones sort after earlier ones.
func newID() string { return uuid.Must(uuid.NewV7()).String() }

// work starts the jobs, the timers and the schedules.
func (m *Main) work(ctx context.Context) error {
	if err := errors.Join(m.takeUp(ctx), m.store.RecoverMessages(ctx)); err != nil {
		return err
	}
	handlers := store.Handlers{
		store.JobLane: func(ctx context.Context, id string) error {
			lane, err := strconv.ParseInt(id, 10, 64)
			if err != nil {
				return err
			}
			return m.runner.Run(ctx, lane)
		},
		store.JobSource:   m.sync,
		store.JobProposal: m.propose,
		store.JobComment:  m.hear,
		store.JobCall:     m.caller.Make,
		store.JobOutbox: func(context.Context, string) error {
			m.tellers.Wake()
			return nil
		},
	}
	if err := m.store.Work(ctx, handlers); err != nil {
		return err
	}
	m.tasks.Go(func() { m.timers.Run(ctx) })
	m.tasks.Go(func() { m.rotate(ctx) })
	m.tasks.Go(func() { m.observe(ctx) })
	m.tasks.Go(func() { m.dismiss(ctx) })
	m.tasks.Go(func() { m.prove(ctx) })
	m.tasks.Go(func() { m.followProposals(ctx) })
	m.tasks.Go(func() { m.followComments(ctx) })
	m.tasks.Go(func() { m.capabilities.follow(ctx) })
	m.tasks.Go(func() {
		if err := m.pool.Warm(ctx); err != nil && ctx.Err() == nil {
			m.log.WithError(err).Error("no render process could be started; each render tries again")
		}
	})
	return nil
}

// takeUp goes on with what a process had under way that is no more.
func (m *Main) takeUp(ctx context.Context) error {
	return errors.Join(m.store.Recover(ctx), m.store.RecoverCalls(ctx), m.store.RecoverProposals(ctx), m.store.RecoverComments(ctx))
}

// rotate keeps the issuer's keys young.
func (m *Main) rotate(ctx context.Context) {
	each := time.NewTicker(10 * time.Minute)
	defer each.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-each.C:
			if err := m.issuer.Rotate(ctx); err != nil && ctx.Err() == nil {
				m.log.WithError(err).Error("the issuer's keys could not be rotated; trying again in ten minutes")
			}
		}
	}
}

// sync takes in what is new in a source. Syncs of one source that are asked for while one is under way are one more sync.
func (m *Main) sync(ctx context.Context, name string) error {
	m.mu.Lock()
	s, people := m.sources[name], m.people
	m.mu.Unlock()
	if s == nil || !s.enter() {
		return nil
	}
	for {
		err := errors.New("taking in broke off")
		again := false
		func() {
			defer func() { again = s.leave(time.Now(), err) }() // also when it panics
			if err = m.capabilities.load(ctx); err == nil {     // another replica may have woken the source because they changed
				err = m.intake.Sync(ctx, s.source(people))
			}
		}()
		if !again {
			return err
		}
	}
}

// Reload takes on the sources and roles of a configuration: new ones are opened, missing ones closed, changed ones opened anew. Where that changes what files may
// ask for or touch, they are all looked at again.
func (m *Main) Reload(c *config.Config) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.people, m.latest = c.Roles, c
	wrong := []error{m.apps.use(m.running, c.GitHub.Apps, m.serves, m.store, m.log)}
	if held, err := ruleSources(c); err != nil {
		wrong = append(wrong, err) // those before stay in force
	} else {
		m.rules.Use(held)
	}
	wanted := map[string]config.Source{}
	for _, s := range c.Sources {
		wanted[s.Name] = s
	}
	for name, s := range m.sources {
		if w, still := wanted[name]; !still || fmt.Sprint(w) != fmt.Sprint(s.config) {
			wrong = append(wrong, s.close())
			delete(m.sources, name)
		}
	}
	for _, w := range c.Sources {
		if m.sources[w.Name] != nil {
			wrong = append(wrong, m.store.WakeSource(m.running, w.Name))
			continue
		}
		s, err := openSource(w, c.Data, &m.apps, m.log)
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		m.sources[w.Name] = s
		m.follow(s)
	}
	all, told, err := tellers(c.Sources, &m.apps, m.store, m.link, m.log)
	if err != nil {
		return errors.Join(append(wrong, err)...)
	}
	m.store.TellAbout(slices.Sorted(maps.Keys(told)))
	m.forges = told
	if m.observing.Load() {
		all = nil // nothing is told yet
	}
	m.tellers.Use(m.running, all)
	return errors.Join(wrong...)
}

// link is the page of a deployment; without an id, of all.
func (m *Main) link(tenant, deployment string) string {
	if deployment == "" {
		return fmt.Sprintf("%s/deployments?environmentId=%s", m.config.ExternalURL, url.QueryEscape(tenant))
	}
	return fmt.Sprintf("%s/deployments/pipeline/%s?environmentId=%s", m.config.ExternalURL, url.PathEscape(deployment), url.QueryEscape(tenant))
}

// follow wakes a source at once and then on its schedule, until it is closed.
func (m *Main) follow(s *source) {
	m.tasks.Go(func() {
		ctx := context.Background()
		for {
			m.mu.Lock()
			current := m.sources[s.config.Name] == s && !m.closed
			m.mu.Unlock()
			if !current {
				return
			}
			if err := m.store.WakeSource(ctx, s.config.Name); err != nil {
				m.log.WithError(err).WithField("source", s.config.Name).Error("a source could not be woken; trying again on its schedule")
			}
			if !m.sleepUntil(s.next(time.Now())) {
				return
			}
		}
	})
}

// listen serves the API and the hub.
func (m *Main) listen(served *certificates) error {
	secure := &tls.Config{GetCertificate: served.get, MinVersion: tls.VersionTLS12}
	hubListener, err := net.Listen("tcp", m.config.Agents.Listen)
	if err != nil {
		return fmt.Errorf("agents.listen: %w", err)
	}
	m.HubAddress = hubListener.Addr().String()
	if m.replicas != nil {
		if err := m.listenToPeers(); err != nil {
			return errors.Join(err, hubListener.Close())
		}
	}
	m.tasks.Go(func() {
		if err := m.hub.Serve(hubListener, secure); err != nil {
			m.log.WithError(err).Error("agents can no longer connect")
		}
	})
	listener, err := net.Listen("tcp", m.config.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	m.Address = listener.Addr().String()
	if err := m.listenForPreviews(); err != nil {
		return errors.Join(err, listener.Close())
	}
	m.server = &http.Server{Handler: m.handler(), TLSConfig: secure.Clone(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10}
	serve := m.server.Serve
	if m.config.Secure() {
		serve = func(l net.Listener) error { return m.server.ServeTLS(l, "", "") }
	}
	m.tasks.Go(func() {
		if err := serve(listener); !errors.Is(err, http.ErrServerClosed) {
			m.log.WithError(err).Error("the API is no longer served")
		}
	})
	close(m.serves)
	return nil
}

// listenToPeers serves the other replicas, and says so.
func (m *Main) listenToPeers() error {
	listener, err := net.Listen("tcp", m.config.Peers.Listen)
	if err != nil {
		return fmt.Errorf("peers.listen: %w", err)
	}
	host, err := m.config.Peers.Host()
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	m.tasks.Go(func() {
		if err := m.hub.ServePeers(listener); err != nil {
			m.log.WithError(err).Error("other replicas can no longer reach the agents of this one")
		}
	})
	m.replicas.start(net.JoinHostPort(host, port))
	return nil
}

func (m *Main) handler() http.Handler {
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), m.hub, newFigures(m), m.proofs.rendered, m.proofs.wrong)
	mux := http.NewServeMux()
	served := api.New(&backend{Main: m}, m.log)
	mux.Handle("/api/v1/", served)
	mux.Handle("POST "+status.HookPath, served)
	tokens := m.issuer.Handler()
	mux.Handle("/oauth/", tokens)
	mux.Handle(preview.Root, m.clusterPreviews())
	mux.Handle("/.well-known/", tokens)
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /deployments/", func(w http.ResponseWriter, r *http.Request) { // where links in statuses and pipelines lead
		id := path.Base(r.URL.Path)
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if uuid.Validate(id) != nil {
			fmt.Fprintln(w, "Deployments, the newest first:  towpath deploy list")
			return
		}
		fmt.Fprintf(w, "How this deployment stands:  towpath deploy status -i %s\nand until its end:           towpath deploy status -i %s --watch\n", id, id)
	})
	mux.HandleFunc("GET "+status.HookPath, appMade)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", m.ready)
	return mux
}

// ready answers 200 while the store can be written and due work is taken: a controller that serves pages and moves nothing is not ready.
func (m *Main) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	if late, err := m.store.Late(ctx, m.late); err != nil || late > 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
		if err != nil {
			fmt.Fprintln(w, "the database does not answer:", err)
			return
		}
		fmt.Fprintf(w, "%d wakes lie untaken for more than %s\n", late, m.late)
		return
	}
	fmt.Fprintln(w, "ok")
}

func (m *Main) sleepUntil(at time.Time) bool {
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-m.done:
		return false
	}
}

// drainWithin is how long requests that run through this replica's agents may take to end when it stops.
const drainWithin = 25 * time.Second

// Close stops taking requests, lets what runs come to a save, and closes the store. Anything that is cut goes on at the next start. Where there are other
// replicas, agents move to them at once, and what still runs here reaches them there; else they stay until nothing runs.
func (m *Main) Close() error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil
	}
	m.closed = true
	close(m.done)
	sources := m.sources
	m.sources = map[string]*source{}
	m.mu.Unlock()

	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	draining, end := context.WithTimeout(context.Background(), drainWithin)
	defer end()
	var errs []error
	if m.replicas != nil && m.hub != nil && !m.replicas.alone() {
		m.hub.Retire()
	}
	if m.store != nil {
		m.store.HangUp() // streams of events end
	}
	if m.server != nil {
		short, cancel := context.WithTimeout(ctx, 20*time.Second)
		for _, server := range []*http.Server{m.server, m.previews} {
			if server != nil && server.Shutdown(short) != nil {
				server.Close()
			}
		}
		cancel()
	}
	if m.store != nil {
		errs = append(errs, m.store.Stop(ctx))
	}
	m.tellers.Use(context.Background(), nil)
	errs = append(errs, m.apps.use(context.Background(), nil, nil, nil, nil))
	if m.cancel != nil {
		m.cancel()
	}
	if m.keeper != nil {
		m.keeper.Close()
	}
	if m.runner != nil {
		m.runner.Close()
	}
	if m.clusters != nil {
		m.clusters.close()
	}
	if m.hub != nil {
		if err := m.hub.Drain(draining); err != nil {
			m.log.WithError(err).Warn("requests of other replicas were cut; watches of theirs go on elsewhere")
		}
	}
	if m.replicas != nil {
		errs = append(errs, m.replicas.close())
	}
	if m.pool != nil {
		errs = append(errs, m.pool.Close())
	}
	if m.outside != nil {
		m.outside.Close()
	}
	m.tasks.Wait()
	for _, s := range sources {
		errs = append(errs, s.close())
	}
	if m.store != nil {
		errs = append(errs, m.store.Close())
	}
	return errors.Join(errs...)
}

// certificates is the configured one, or one of an authority of our own that is kept beside the data: agents are given its certificate.
func (m *Main) certificates() (*certificates, error) {
	base, err := url.Parse(m.config.ExternalURL)
	if err != nil {
		return nil, err
	}
	hosts := []string{base.Hostname()}
	if host, _, err := net.SplitHostPort(m.config.Agents.Address); err == nil && host != base.Hostname() {
		hosts = append(hosts, host)
	}
	c := &certificates{certFile: m.config.TLS.Certificate, keyFile: m.config.TLS.Key, dir: m.authority(), hosts: hosts, clock: time.Now, log: m.log}
	return c, c.renew(time.Now())
}

// authority is the directory of our own one.
func (m *Main) authority() string { return filepath.Join(m.config.Data, "tls") }

// hubAddress is where agents find the hub.
func (m *Main) hubAddress() string {
	if m.config.Agents.Address != "" {
		return m.config.Agents.Address
	}
	_, port, err := net.SplitHostPort(m.HubAddress)
	base, parsed := url.Parse(m.config.ExternalURL)
	if err != nil || parsed != nil {
		return m.HubAddress
	}
	return net.JoinHostPort(base.Hostname(), port)
}
