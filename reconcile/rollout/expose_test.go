package rollout_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"towpath/deployment"
	"towpath/manifest"
	"towpath/reconcile/rollout"
)

func expose(ttl time.Duration, services ...string) rollout.Step {
	return rollout.Step{Expose: &rollout.Expose{Services: services, TTL: ttl}}
}

// links of a model as "gate service:port lasts".
func (m *model) links() string {
	var all []string
	for _, l := range m.facts.Links {
		all = append(all, fmt.Sprintf("%s %s/%s:%d %s", l.Gate, l.Namespace, l.Service, l.Port, l.Until.Sub(l.Made)))
	}
	return strings.Join(all, "\n")
}

func (m *model) expectLinks(t *testing.T, want ...string) {
	t.Helper()
	if is := m.links(); is != strings.Join(want, "\n") {
		t.Errorf("links are\n%s\nwant\n%s", is, strings.Join(want, "\n"))
	}
}

func TestAStepThatExposesServicesMakesLinksAndPassesAtOnce(t *testing.T) {
	m := second(t, 4, weight(50), expose(5*time.Minute, "web", "web"), pause(time.Minute), expose(time.Hour, "web", "other"), approval())
	m.put(manifest.Key{Kind: "Service", Namespace: "shop", Name: "other"}).live.Ports = []rollout.Port{{Name: "https", Protocol: "TCP", Number: 8443}}
	began := m.now
	m.until(t, rollout.WaitPause)
	m.expectLinks(t, "canary.steps[1] shop/web:80 5m0s")
	if l := m.facts.Links[0]; m.now != began || l.Made != began || l.TLS {
		t.Errorf("after %s: %+v", m.now.Sub(began), l)
	}
	m.until(t, rollout.WaitApproval)
	m.expectLinks(t, "canary.steps[1] shop/web:80 5m0s", "canary.steps[3] shop/web:80 1h0m0s", "canary.steps[3] shop/other:8443 1h0m0s")
	if !m.facts.Links[2].TLS {
		t.Error("a port called https is taken to speak HTTP in clear")
	}
	var said []string
	for _, e := range m.events {
		if e.Kind == "target.exposed" {
			said = append(said, e.What)
		}
	}
	if want := "prod: Service web has a preview link until 2026-03-02 09:05 UTC"; len(said) != 3 || said[0] != want {
		t.Errorf("history says %q, want first %q", said, want)
	}
	m.say(rollout.Approve, "canary.steps[4]", "ann")
	m.run(t)
	expect(t, m, rollout.Succeeded, "", map[string]int32{"web-b": 4})
}

func TestLinksAreMadeBesideStepsThatWait(t *testing.T) {
	m := newModel().deploy(1, "m1", set("a", 3, webService, webPreview))
	m.blueGreen(nil, nil).run(t)
	m.deploy(2, "m2", set("b", 3, webService, webPreview))
	m.blueGreen([]rollout.Step{approval(), hook(rollout.Webhook{Name: "smoke"}), expose(time.Hour, "preview")}, []rollout.Step{expose(time.Minute, "web"), pause(time.Minute)})
	m.outside = func(c rollout.Call) *rollout.Answer {
		if len(m.facts.Links) != 1 {
			t.Error("the webhook beside it cannot be told of the link")
		}
		return taken(c)
	}
	m.until(t, rollout.WaitApproval)
	m.expectLinks(t, "blueGreen.redirectTrafficAfter[2] shop/preview:80 1h0m0s")
	if got := strings.Join(m.tries, " "); got != "smoke:0:1" {
		t.Errorf("the webhook beside it was called as %s", got)
	}
	m.back("smoke", true, "")
	m.say(rollout.Approve, "blueGreen.redirectTrafficAfter[0]", "ann")
	m.until(t, rollout.WaitPause)
	m.expectLinks(t, "blueGreen.redirectTrafficAfter[2] shop/preview:80 1h0m0s", "blueGreen.shutDownOldVersionAfter[0] shop/web:80 1m0s")
	m.run(t)
	expect(t, m, rollout.Succeeded, "", map[string]int32{"web-b": 3})
}

func TestWhatNoLinkCanLeadToFailsTheStep(t *testing.T) {
	for name, c := range map[string]struct {
		ports []rollout.Port
		names string
		why   string
	}{
		"a Service that is not there": {nil, "elsewhere", "Service shop/elsewhere, which exposeServices names, is not in the cluster"},
		"two ports": {[]rollout.Port{{Name: "http", Protocol: "TCP", Number: 80}, {Name: "metrics", Protocol: "TCP", Number: 9090}}, "web",
			"Service shop/web has 2 ports; a preview link leads to a Service with a single HTTP port"},
		"no port":       {[]rollout.Port{}, "web", "Service shop/web has 0 ports; a preview link leads to a Service with a single HTTP port"},
		"another trade": {[]rollout.Port{{Protocol: "UDP", Number: 53}}, "web", "the port of Service shop/web is UDP; a preview link leads to a Service with a single HTTP port"},
	} {
		t.Run(name, func(t *testing.T) {
			m := second(t, 4, weight(50), expose(time.Minute, c.names))
			m.objects[webService].live.Ports = c.ports
			m.run(t)
			expect(t, m, rollout.RolledBack, "canary.steps[1]: "+c.why+"; held at #1", map[string]int32{"web-a": 4})
			m.expectLinks(t)
		})
	}
}

func TestServicesThatCannotBeReadNowAreReadAgain(t *testing.T) {
	m := second(t, 4, weight(50), pause(time.Hour), expose(time.Minute, "web"))
	m.unread = []rollout.Failure{{Class: rollout.Trouble, Text: "connection reset"}, {Class: rollout.Away, Text: "no agent"}}
	m.until(t, rollout.WaitRetry)
	m.run(t)
	expect(t, m, rollout.Succeeded, "", map[string]int32{"web-b": 4})
	m.expectLinks(t, "canary.steps[2] shop/web:80 1m0s")

	m = second(t, 4, weight(50), expose(time.Minute, "web"))
	m.unread = []rollout.Failure{{Class: rollout.Refused, Object: webService, Text: "services \"web\" is forbidden"}}
	m.run(t)
	expect(t, m, rollout.RolledBack, "Service shop/web: services \"web\" is forbidden; held at #1", map[string]int32{"web-a": 4})
}

func TestAPersonPassesOverAStepThatExposes(t *testing.T) {
	m := second(t, 4, weight(50), pause(time.Hour), expose(time.Minute, "elsewhere"))
	m.say(rollout.Pass, "canary.steps[2]", "ann")
	m.run(t)
	expect(t, m, rollout.Succeeded, "", map[string]int32{"web-b": 4})
	m.expectLinks(t)
}

func TestExposeServicesOfAFileIsAStep(t *testing.T) {
	file, problems := deployment.Parse("towpath.yaml", []byte(`application: shop
targets: {prod: {account: prod, strategy: s}}
manifests: [{path: m}]
strategies: {s: {canary: {steps: [{setWeight: {weight: 50}}, {exposeServices: {services: [web]}}, {exposeServices: {services: [web, api], ttl: {duration: 2, unit: hours}}}]}}}
`))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	way := rollout.WayOf(file, *file.Target("prod"), false)
	if first, second := way.Canary[1].Expose, way.Canary[2].Expose; first.TTL != 5*time.Minute || second.TTL != 2*time.Hour || len(second.Services) != 2 || !way.Exposes() {
		t.Errorf("%+v, %+v", first, second)
	}
}
