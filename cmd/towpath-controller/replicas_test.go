package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"towpath/agent/edge"
	"towpath/api"
	"towpath/cmd/towpath-controller/config"
	"towpath/internal/localkube"
	"towpath/internal/testkit/faultproxy"
	"towpath/internal/testkit/kube"
	"towpath/internal/testkit/postgres"
	"towpath/reconcile/rollout"
	"towpath/store"
)

// replica is a configuration of one of several controllers on a database, all with the certificate's authority of the first.
func replica(t *testing.T, database, data string) *config.Config {
	t.Helper()
	c := configure(t, "")
	c.Database, c.Peers.Listen = database, "127.0.0.1:0"
	if data != "" {
		must(t, os.CopyFS(filepath.Join(c.Data, "tls"), os.DirFS(filepath.Join(data, "tls"))))
	}
	return c
}

// sharing is replicas, a cluster, and its agent, which comes to one of them.
type sharing struct {
	t         *testing.T
	admin     string
	cluster   *kube.Cluster
	namespace string
	hubs      *faultproxy.Proxy // where the agent connects
}

// push starts application shop with a value, through a replica.
func (s *sharing) push(through *controller, value string) (id string) {
	s.t.Helper()
	u := upload("shop", value)
	u.Files["deploy.yml"] = []byte(strings.ReplaceAll(string(u.Files["deploy.yml"]), "namespace: ns", "namespace: "+s.namespace))
	answer := through.call(s.admin, http.MethodPost, "/api/v1/deployments", u)
	if answer.status != http.StatusCreated {
		s.t.Fatalf("%d %s", answer.status, answer.text)
	}
	var started api.Started
	answer.read(s.t, &started)
	return started.ID
}

// succeeds waits until a deployment has, and looks whether its cluster has the value.
func (s *sharing) succeeds(by *controller, id, value string) {
	s.t.Helper()
	await(s.t, "the end of the deployment of "+value, func() bool {
		d, err := by.store.Deployment(s.t.Context(), "main", id)
		must(s.t, err)
		if d.State.Final() && d.State != rollout.Succeeded {
			s.t.Fatalf("the deployment of %s is %s: %s", value, d.State, d.Why)
		}
		return d.State == rollout.Succeeded
	})
	got, err := s.configMaps().Get(s.t.Context(), "shop", metav1.GetOptions{})
	must(s.t, err)
	if data := got.Object["data"].(map[string]any)["value"]; data != value {
		s.t.Errorf("the cluster has %v, want %s", data, value)
	}
}

func (s *sharing) configMaps() dynamic.ResourceInterface {
	return s.cluster.Client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).Namespace(s.namespace)
}

// meddle changes by hand what was rolled out.
func (s *sharing) meddle() {
	s.t.Helper()
	_, err := s.configMaps().Patch(s.t.Context(), "shop", types.MergePatchType, []byte(`{"data": {"value": "another's"}}`), metav1.PatchOptions{FieldManager: "somebody"})
	must(s.t, err)
}

// drifts is how often drift began, as history says.
func (s *sharing) drifts(by *controller) (count int) {
	s.t.Helper()
	events, err := by.store.Events(s.t.Context(), store.EventFilter{Tenant: "main", Application: "shop"})
	must(s.t, err)
	for _, e := range events {
		if e.Kind == "target.drifted" {
			count++
		}
	}
	return count
}

// listed is the agent as a replica shows it.
func (s *sharing) listed(by *controller) api.Agent {
	s.t.Helper()
	var list struct{ Items []api.Agent }
	by.call(s.admin, http.MethodGet, "/api/v1/agents", nil).read(s.t, &list)
	if len(list.Items) != 1 {
		s.t.Fatalf("agents: %+v", list.Items)
	}
	return list.Items[0]
}

func TestReplicasReachEachOthersAgentsAndGoOnWhenOneIsGone(t *testing.T) {
	t.Parallel()
	database := postgres.Start(t).Database(t)
	first := replica(t, database, "")
	a := start(t, first)
	b := start(t, replica(t, database, first.Data))
	s := &sharing{t: t, admin: a.token("main", "ann", api.Admin), cluster: kube.Start(t, kube.Options{Nodes: 1})}
	s.namespace = s.cluster.Namespace(t)
	access := s.cluster.Account(t, s.namespace, "agent", false, localkube.Deploys()...)
	s.hubs = faultproxy.Start(t, b.HubAddress)
	var made api.Credential
	a.call(s.admin, http.MethodPost, "/api/v1/agents", map[string]string{"name": "prod"}).read(t, &made)
	a.connectBy(made, "one", "https://"+a.Address+"/oauth/token", filepath.Join(first.Data, "tls", caFile), func(c *edge.Config) {
		c.Hub.Address = s.hubs.Address()
		c.Kubernetes = edge.Kubernetes{Server: access.Server, CAFile: access.CAFile, TokenFile: access.TokenFile}
	})
	await(t, "the agent at b, seen from a", func() bool { return a.hub.Connected("main", "prod") })
	if a.hub.Has("main", "prod") || !b.hub.Has("main", "prod") {
		t.Fatal("the agent is not where it connected")
	}
	for _, c := range []*controller{a, b} {
		if agent := s.listed(c); !agent.Connected || agent.Instances != 1 || agent.Version != "test" || agent.Remote == "" {
			t.Errorf("listed: %+v", agent)
		}
	}

	must(t, b.store.Stop(t.Context())) // b runs no lanes any more, and has the agent
	a.keeper.Close()                   // a watches nothing
	s.succeeds(a, s.push(a, "one"), "one")
	if text := a.call("", http.MethodGet, "/metrics", nil).text; !strings.Contains(text, `towpath_hub_forwards_total{agent="prod",code="200",tenant="main"}`) {
		t.Error("a has counted no forwards")
	}

	s.meddle()
	await(t, "what b, which watches, says of what a rolled out", func() bool { return s.drifts(a) == 1 })

	b.replicas.stop() // dies: it says no good-bye to the others, and its agent finds another
	s.hubs.Target(a.HubAddress)
	b.hub.Close()
	id := s.push(a, "two")
	await(t, "the agent at a", func() bool { return a.hub.Has("main", "prod") })
	s.succeeds(a, id, "two")

	d := start(t, replica(t, database, first.Data))
	s.hubs.Target(d.HubAddress)
	id = s.push(d, "three")
	must(t, a.Close()) // stops in order, under way
	s.succeeds(d, id, "three")
	s.meddle()
	await(t, "what d says, which watches now", func() bool { return s.drifts(d) == 2 })
	await(t, "one session, at d", func() bool {
		all, err := d.store.Sessions(t.Context(), "main", "prod", alive)
		must(t, err)
		return len(all) == 1 && all[0].Replica == d.replicas.self && s.listed(d).Instances == 1
	})
	if answer := d.call(s.admin, http.MethodDelete, "/api/v1/agents/prod", nil); answer.status != http.StatusNoContent {
		t.Fatalf("%d %s", answer.status, answer.text)
	}
	await(t, "the end of its session", func() bool { return !d.hub.Connected("main", "prod") })
}

// A lane that waits for what a replica watched would wait for nothing once that is no more.
func TestWhatADeadReplicaHadUnderWayIsTakenUp(t *testing.T) {
	t.Parallel()
	database := postgres.Start(t).Database(t)
	first := replica(t, database, "")
	a := start(t, first)
	b := start(t, replica(t, database, first.Data))
	await(t, "both replicas", func() bool {
		all, err := a.store.Replicas(t.Context(), alive)
		must(t, err)
		return len(all) == 2
	})
	s := &sharing{t: t, admin: a.token("main", "ann", api.Admin), namespace: "ns"}
	s.push(a, "waits for an agent")
	lanes, err := a.store.Lanes(t.Context(), "main", "shop")
	must(t, err)
	read := func() rollout.Lane {
		lane, err := a.store.Lane(t.Context(), lanes[0].ID)
		must(t, err)
		return lane
	}
	await(t, "the lane to wait", func() bool { c := read().Current; return c != nil && len(c.Waits) > 0 })
	before := read().Seq
	b.replicas.stop() // it says no good-bye
	await(t, "the lane to be woken", func() bool { return read().Seq > before })
}

// It is the database that says so: to a controller that was there before as well, and to one that comes later.
func TestAllReplicasObserveWhenOneBeginsTo(t *testing.T) {
	t.Parallel()
	database := postgres.Start(t).Database(t)
	first := replica(t, database, "")
	before := start(t, first)
	admin := before.token("main", "ann", api.Admin)
	begun := start(t, replica(t, database, first.Data), func(m *Main) { m.Rebuild = true })
	later := start(t, replica(t, database, first.Data))
	all := []*controller{before, begun, later}
	for i, c := range all {
		answer := c.call(admin, http.MethodPost, "/api/v1/deployments", upload("shop", "one"))
		if answer.status != http.StatusConflict || !strings.Contains(answer.text, "observes since its database was lost, and touches nothing; have it go on with: towpath-controller resume") {
			t.Errorf("replica %d: %d %s", i, answer.status, answer.text)
		}
	}
	await(t, "all to hold back", func() bool { return before.observing.Load() && begun.observing.Load() && later.observing.Load() })
	must(t, begun.store.Resume(t.Context(), "ann"))
	await(t, "all to go on", func() bool { return !before.observing.Load() && !begun.observing.Load() && !later.observing.Load() })
	if answer := before.call(admin, http.MethodPost, "/api/v1/deployments", upload("shop", "one")); answer.status != http.StatusCreated {
		t.Errorf("%d %s", answer.status, answer.text)
	}
}

func TestAnAgentThatIsRevokedAtOneReplicaLosesItsSessionAtAnother(t *testing.T) {
	t.Parallel()
	database := postgres.Start(t).Database(t)
	first := replica(t, database, "")
	a := start(t, first)
	b := start(t, replica(t, database, first.Data))
	s := &sharing{t: t, admin: a.token("main", "ann", api.Admin)}
	var made api.Credential
	a.call(s.admin, http.MethodPost, "/api/v1/agents", map[string]string{"name": "prod"}).read(t, &made)
	a.connectBy(made, "one", "https://"+a.Address+"/oauth/token", filepath.Join(first.Data, "tls", caFile), func(c *edge.Config) { c.Hub.Address = b.HubAddress })
	await(t, "the agent at b, seen from a", func() bool { return b.hub.Has("main", "prod") && a.hub.Connected("main", "prod") })
	if answer := a.call(s.admin, http.MethodPost, "/api/v1/agents/prod/revoke", nil); answer.status != http.StatusNoContent {
		t.Fatalf("%d %s", answer.status, answer.text)
	}
	for _, c := range []*controller{b, a} {
		await(t, "the end of its session, and why, as both list it", func() bool {
			agent := s.listed(c)
			return !agent.Connected && strings.Contains(agent.Why, "revoked")
		})
	}
	if b.hub.Has("main", "prod") {
		t.Error("b has a session of it")
	}
}
