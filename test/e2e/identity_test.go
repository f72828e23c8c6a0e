package e2e

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"towpath/api"
	"towpath/internal/testkit/world"
)

// An agent whose credential turns up at another cluster carries nothing there, until a person says that this is meant; then what was good is there, too.
func TestAnotherClusterBehindAnAgentWaitsForAPerson(t *testing.T) {
	t.Parallel()
	w := first(t, strings.NewReplacer("strategy: careful}\n", "strategy: careful}\n  then: {account: prod, namespace: NAMESPACE, constraints: {dependsOn: [prod]}}\n",
		"manifests: [{path: manifests}]", "manifests: [{path: manifests, targets: [prod]}, {inline: '{apiVersion: v1, kind: ConfigMap, metadata: {name: then}}', targets: [then]}]").Replace(world.OnProd(halfThenApproval, "")))
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
	var accepted api.Accepted
	if err := json.Unmarshal([]byte(out), &accepted); err != nil || len(accepted.Deployments) != 1 {
		t.Fatalf("accept names no deployment: %s (%v)", out, err)
	}
	brought := w.Ended(accepted.Deployments[0])
	expectState(t, brought, "SUCCEEDED")
	if images := w.Images("staging"); images["example.com/web:1"] != 4 || len(images) != 1 {
		t.Errorf("of what was good run %v", images)
	}
	if then := target(t, brought, "then"); !slices.Equal(then.DependsOn, []string{"prod"}) || then.Started.Before(*target(t, brought, "prod").Ended) {
		t.Errorf("then depends on %v, and began at %s", then.DependsOn, then.Started)
	}
	refused(t, w, "agent prod connects from no other cluster than before", nil, "agent", "accept", "prod")
	if out := must(t, w, "agent", "list"); strings.Contains(out, "held") {
		t.Errorf("list: %s", out)
	}
}
