package e2e

import (
	"strings"
	"testing"

	"towpath/internal/testkit/world"
)

// An agent whose credential turns up at another cluster carries nothing there, until a person says that this is meant; then what was good is there, too.
func TestAnotherClusterBehindAnAgentWaitsForAPerson(t *testing.T) {
	t.Parallel()
	w := first(t, world.OnProd(halfThenApproval, ""))
	for _, cluster := range []string{"staging", "prod"} {
		w.Identified(cluster)
	}
	w.StopAgent("prod")
	w.StartAgent("prod") // the first time that it may tell
	w.Await("the cluster's UID", func() (bool, error) {
		return strings.Contains(must(t, w, "agent", "show", "prod"), "cluster:"), nil
	})
	w.StopAgent("prod")
	w.MoveAgent("prod", "staging")
	w.Await("the stranger", func() (bool, error) {
		return strings.Contains(must(t, w, "agent", "list"), "held: another cluster"), nil
	})
	if out := must(t, w, "agent", "show", "prod"); !strings.Contains(out, "and nothing goes through it; if that is meant: towpath agent accept prod") {
		t.Errorf("show: %s", out)
	}
	d := next(t, w, 2, "agent")
	if out := must(t, w, "why", "shop", "prod"); !strings.Contains(out, "waits for ") || len(w.Images("staging")) > 0 {
		t.Errorf("why: %s; on the other cluster run %v", out, w.Images("staging"))
	}
	must(t, w, "deploy", "cancel", d.ID)
	w.Ended(d.ID)
	out := must(t, w, "-o", "json", "agent", "accept", "prod")
	if strings.Count(out, "-") < 4 {
		t.Errorf("accept names no deployment: %s", out)
	}
	w.Await("what was good", func() (bool, error) { return w.Images("staging")["example.com/web:1"] == 4, nil })
	refused(t, w, "agent prod connects from no other cluster than before", nil, "agent", "accept", "prod")
	if out := must(t, w, "agent", "list"); strings.Contains(out, "held") {
		t.Errorf("list: %s", out)
	}
}
