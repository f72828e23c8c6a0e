package proof_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"towpath/internal/testkit/cloud"
	"towpath/manifest"
	"towpath/reconcile/rollout"
	"towpath/store"
)

// scenario is a rollout that is cut at each of its points. It begins with version 1 running, unless before says otherwise.
type scenario struct {
	way     rollout.Way
	targets []string // each depends on the one before it; none: one
	before  func(*cutting)
	then    func(*cutting) // what people do meanwhile
	sick    bool           // version 2 never becomes ready
	fleets  bool           // there are a StatefulSet and a DaemonSet, which take the steps
	hooks   []rollout.Hook // of version 2
	breaks  string         // the hook "migrate" ends so
	ends    rollout.State  // of the deployment of version 2
}

func at(weight int) rollout.Step { return rollout.Step{Weight: &weight} }

func approval(expires time.Duration) rollout.Step {
	return rollout.Step{Approval: &rollout.Approval{Count: 1, Expires: expires}}
}

var mesh = []rollout.Route{{Kind: rollout.Istio, Name: "web"}}

var scenarios = map[string]scenario{
	"rolling": {ends: rollout.Succeeded},
	"canary":  {way: rollout.Way{Canary: []rollout.Step{at(25), {Pause: time.Minute}, at(50)}}, ends: rollout.Succeeded},
	"blue and green": {way: rollout.Way{BlueGreen: &rollout.BlueGreen{Services: []rollout.ServicePair{{Active: "web", Preview: "preview"}},
		Redirect: []rollout.Step{{Pause: time.Minute}}, ShutDown: []rollout.Step{{Pause: time.Minute}}}}, ends: rollout.Succeeded},
	"approval":                       {way: rollout.Way{Canary: []rollout.Step{at(25), approval(0)}}, then: approves("d2"), ends: rollout.Succeeded},
	"traffic":                        {way: rollout.Way{Traffic: mesh, Canary: []rollout.Step{at(25), {Pause: time.Minute}, at(50)}}, ends: rollout.Succeeded},
	"traffic that goes back":         {way: rollout.Way{Traffic: mesh, Canary: []rollout.Step{at(25), approval(time.Hour)}}, ends: rollout.Cancelled},
	"traffic of what never is ready": {way: rollout.Way{Traffic: mesh, Canary: []rollout.Step{at(25)}}, sick: true, ends: rollout.Failed},
	"supersede while traffic is divided": {way: rollout.Way{Traffic: mesh, Canary: []rollout.Step{at(50), approval(0)}}, then: func(c *cutting) {
		c.when("d2", rollout.WaitApproval, func() { c.deploy(3) })
		approves("d3")(c)
	}, ends: rollout.Cancelled},
	"expiry":                {way: rollout.Way{Canary: []rollout.Step{at(25), approval(time.Hour)}}, ends: rollout.Cancelled},
	"two dependent targets": {targets: []string{"staging", "prod"}, ends: rollout.Succeeded},
	"rollback":              {way: rollout.Way{Canary: []rollout.Step{at(25)}}, sick: true, ends: rollout.Failed},
	"supersede in mid-canary": {way: rollout.Way{Canary: []rollout.Step{at(50), approval(0)}}, then: func(c *cutting) {
		c.when("d2", rollout.WaitApproval, func() { c.deploy(3) })
		approves("d3")(c)
	}, ends: rollout.Cancelled},
	"take-over": {way: rollout.Way{Canary: []rollout.Step{at(34), approval(0)}}, before: func(c *cutting) {
		cluster, space := c.cloud.Cluster("prod"), namespace(c.app, c.app.targets[0])
		deployment := cluster.Put(key("apps", "Deployment", space, "web"), func(o *cloud.Object) { o.From, o.Health, o.Message = "theirs", rollout.Progressing, "Updated: 1/3" })
		cluster.Put(key("apps", "ReplicaSet", space, "web-theirs"), func(o *cloud.Object) { o.Workload, o.Hash, o.Replicas, o.Ready, o.Proved = "web", "theirs", 4, 4, 4 })
		c.After(3*time.Minute, func() { deployment.Health, deployment.Message = rollout.Healthy, "" })
	}, then: approves("d2"), ends: rollout.Succeeded},
	"fleets":              {fleets: true, way: rollout.Way{Canary: []rollout.Step{at(25), {Pause: time.Minute}, at(75)}}, ends: rollout.Succeeded},
	"fleets that go back": {fleets: true, way: rollout.Way{Canary: []rollout.Step{at(50), approval(time.Hour)}}, ends: rollout.Cancelled},
	"sick fleets":         {fleets: true, way: rollout.Way{Canary: []rollout.Step{at(50)}}, sick: true, ends: rollout.Failed},
	"supersede fleets": {fleets: true, way: rollout.Way{Canary: []rollout.Step{at(50), approval(0)}}, then: func(c *cutting) {
		c.when("d2", rollout.WaitApproval, func() { c.deploy(3) })
		approves("d3")(c)
	}, ends: rollout.Cancelled},
	"hooks":                    {hooks: jobs, way: rollout.Way{Canary: []rollout.Step{at(25), {Pause: time.Minute}}}, ends: rollout.Succeeded},
	"hooks of which one fails": {hooks: jobs, breaks: "exit code 3", ends: rollout.Failed},
	"hooks that are cancelled": {hooks: jobs, then: func(c *cutting) {
		c.when("d2", rollout.WaitHealth, func() { c.refusable(c.store.Cancel(context.Background(), "main", "d2", "ann", "not this one")) })
	}, ends: rollout.Cancelled},
	"hold": {way: rollout.Way{Canary: []rollout.Step{at(25), {Pause: time.Hour}, at(50)}}, then: func(c *cutting) {
		h := store.Hold{Tenant: "main", Scope: store.ScopeApplication, Name: "shop", By: "ann", Reason: "incident"}
		c.when("d2", rollout.WaitPause, func() {
			c.refusable(c.store.Hold(context.Background(), h))
			c.After(2*time.Hour, func() { c.refusable(c.store.Unhold(context.Background(), h)) })
		})
	}, ends: rollout.Succeeded},
}

// jobs are hooks that come before and after, with all that a delete policy can say.
var jobs = []rollout.Hook{
	{Key: key("batch", "Job", "shop-prod", "account"), Hook: manifest.Hook{Weight: -1, Events: []string{"pre-upgrade"}, Policies: []string{"hook-succeeded"}}},
	{Key: key("batch", "Job", "shop-prod", "migrate"), Hook: manifest.Hook{Events: []string{"pre-upgrade", "post-upgrade"}, Policies: []string{"before-hook-creation", "hook-failed"}}},
	{Key: key("batch", "Job", "shop-prod", "warm"), Hook: manifest.Hook{Weight: 1, Events: []string{"post-upgrade"}, Policies: []string{"hook-succeeded", "hook-failed"}}},
}

// approves lets a person approve what a deployment asks for, a while later.
func approves(deployment string) func(*cutting) {
	return func(c *cutting) {
		c.when(deployment, rollout.WaitApproval, func() {
			c.refusable(c.store.Say(context.Background(), rollout.Saying{Tenant: "main", Deployment: deployment, Verb: rollout.Approve, By: "ann"}))
			c.words[deployment] = append(c.words[deployment], rollout.Word{Target: "prod", Gate: "canary.steps[1]", Verb: rollout.Approve, By: "ann", Digest: c.digest(deployment)})
		})
	}
}

// cutting is a scenario under way, cut at some of its points.
type cutting struct {
	*story
	app    *app
	points []string // that were passed
	cuts   []int    // places among them
	events int64    // before it began
}

// when lets somebody do something once, ten seconds after a deployment first waits for something.
func (c *cutting) when(deployment string, kind rollout.WaitKind, do func()) {
	done := false
	c.onSaved = append(c.onSaved, func(t rollout.Target) {
		if !done && t.Deployment == deployment && slices.ContainsFunc(t.Waits, func(w rollout.Wait) bool { return w.Kind == kind }) {
			done = true
			c.After(10*time.Second, do)
		}
	})
}

func (c *cutting) digest(deployment string) string {
	d, err := c.store.Deployment(context.Background(), "main", deployment)
	c.must(err)
	return d.Targets[0].Digest
}

func (c *cutting) deploy(version int) {
	start := c.start(c.app, rollout.Trigger{Kind: "push", By: "bob"})
	start.ID = fmt.Sprint("d", version)
	for _, p := range c.app.targets {
		p.version = version
		start.Targets = append(start.Targets, c.wants(c.app, p))
	}
	c.begins(c.app, start)
}

// cutAt runs a scenario with the process killed at some of its points, and says how it ended.
func cutAt(sc scenario, cuts ...int) (c *cutting, end string) {
	h := newHouse(inMemory, 1, true, fault{})
	c = &cutting{story: &story{house: h, r: rand.New(rand.NewPCG(1, 7)), plain: true, fleets: sc.fleets}, app: &app{name: "shop"}, cuts: cuts}
	if sc.targets == nil {
		sc.targets = []string{"prod"}
	}
	for i, name := range sc.targets {
		p := &place{name: name, account: name, versions: map[int]version{}, way: sc.way}
		p.way.Timeout = 20 * time.Minute
		if sc.fleets {
			p.way.Workloads = []string{"StatefulSet", "DaemonSet"}
		}
		if i > 0 {
			p.dependsOn = sc.targets[i-1 : i]
			p.way.DependsOn = p.dependsOn
		}
		for v := 1; v <= 3; v++ {
			set := c.version(c.app, p, v).set
			fate := cloud.Pods{After: 5 * time.Second}
			if v == 2 && sc.sick {
				fate.Never = "ErrImagePull"
			}
			h.cloud.Cluster(name).Fate(set.Revisions[0].ReplicaSet, fate)
			for _, f := range set.Fleets {
				h.cloud.Cluster(name).Fate(cloud.FateOf(f.Key, p.versions[v].digest), fate)
			}
			if v == 2 && sc.hooks != nil {
				set.Hooks = sc.hooks
				h.sets[p.versions[v].digest] = set
				for _, hook := range sc.hooks {
					fate := cloud.Pods{After: time.Minute}
					if hook.Key.Name == "migrate" {
						fate.Breaks = sc.breaks
					}
					h.cloud.Cluster(name).Fate(cloud.FateOf(hook.Key, p.versions[v].digest), fate)
				}
			}
			h.cloud.Cluster(name).Refuse(p.versions[v].digest, "")
		}
		c.app.targets = append(c.app.targets, p)
	}
	h.live()
	if sc.before != nil {
		sc.before(c)
	} else {
		c.deploy(1)
		h.drive(start.Add(time.Hour))
	}
	events, err := h.store.Events(context.Background(), store.EventFilter{Tenant: "main"})
	h.must(err)
	c.events = int64(len(events))
	h.cut = func(point string) bool {
		c.points = append(c.points, point)
		return len(c.cuts) > 0 && len(c.points) == c.cuts[0]+1 && func() bool { c.cuts = c.cuts[1:]; return true }()
	}
	if sc.then != nil {
		sc.then(c)
	}
	c.deploy(2)
	h.drive(start.Add(24 * time.Hour))
	h.end()
	return c, c.ended()
}

// ended is all that must be the same however a run was cut: clusters, states, and what history tells and asks.
func (c *cutting) ended() string {
	var out strings.Builder
	for _, s := range c.starts {
		d, err := c.store.Deployment(context.Background(), "main", s.ID)
		c.must(err)
		fmt.Fprintln(&out, s.ID, d.State)
		for _, t := range d.Targets {
			fmt.Fprintln(&out, " ", t.Name, t.State, t.Why)
		}
	}
	for _, cluster := range c.cloud.All() {
		for _, o := range cluster.Objects() {
			fmt.Fprintln(&out, cluster.Name, o.Key, o.Replicas, o.From, o.Selects, o.Divided.Stage)
			if o.Fleet != nil {
				fmt.Fprintln(&out, " ", o.Fleet.Runs(), o.Fleet.Share.Weight)
			}
		}
	}
	events, err := c.store.Events(context.Background(), store.EventFilter{Tenant: "main", After: c.events})
	c.must(err)
	for _, e := range events {
		fmt.Fprintln(&out, e.Target, e.Kind, e.What, e.Why)
	}
	return out.String()
}

// pairs of cuts of each scenario, by seed; the long form makes all.
const pairs = 300

// Cut before or after any save and any effect, and at any two of them, each scenario ends as it does undisturbed.
func TestCutAnywhereItEndsAsIfUndisturbed(t *testing.T) {
	for name, sc := range scenarios {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			undisturbed, want := cutAt(sc)
			if undisturbed.wrong != "" {
				t.Fatal(undisturbed.wrong)
			}
			if d, err := undisturbed.store.Deployment(t.Context(), "main", "d2"); err != nil || d.State != sc.ends {
				t.Fatalf("undisturbed it is %s (%v), want %s:\n%s", d.State, err, sc.ends, want)
			}
			made := 0
			check := func(cuts ...int) {
				t.Helper()
				c, got := cutAt(sc, cuts...)
				if len(c.cuts) == 0 {
					made++
				}
				if c.wrong != "" || got != want {
					t.Fatalf("cut at %d (%s): %s\n got %s\nwant %s", cuts, c.points[cuts[0]], c.wrong, got, want)
				}
			}
			points := len(undisturbed.points)
			for i := range points {
				check(i)
			}
			if made < points {
				t.Errorf("of %d cuts only %d were made", points, made)
			}
			all := os.Getenv("TOWPATH_SOAK") != ""
			r := rand.New(rand.NewPCG(1, uint64(points)))
			for i := range points {
				for j := i + 1; j < points+10; j++ {
					if all || r.IntN(points*points/2) < pairs {
						check(i, j)
					}
				}
			}
			t.Logf("%d points, %d cuts", points, made)
		})
	}
}
