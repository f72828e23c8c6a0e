package e2e

import (
	"strings"
	"testing"

	"towpath/internal/testkit/gitserver"
	"towpath/internal/testkit/world"
)

const platformRules = `version: v1
kind: policies
use:
  - no-latest-tag
  - {rule: two-replicas-in-production, match: {targets: [prod]}}
  - keep-volumes
`

// A platform team's repository says what may be deployed; that of an application is refused until its file keeps to it.
func TestARuleOfTheConfigRepositoryRefusesAMergeUntilItIsMended(t *testing.T) {
	t.Parallel()
	platform := gitserver.NewRepo(t, t.TempDir(), "platform", gitserver.Files{"policies/all.yaml": platformRules})
	claim := "---\napiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: data}\nspec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}\n"
	good := gitserver.Files{"shop/towpath.yaml": file("shop", ""), "shop/manifests/web.yaml": workload("web", "example.com/web:1") + claim}
	w := world.New(t, &shared, good, world.Beside("platform", platform, ""), world.Configuration("policies: [{source: platform}]"))
	expectState(t, w.Ended(w.Deployment("shop", w.Repository.Head("main")).ID), "SUCCEEDED")

	refused := func(message, text, want string) {
		t.Helper()
		w.Commit(message, gitserver.Files{"shop/manifests/web.yaml": text})
		shows(t, w, want)
	}
	refused("no version", workload("web", "example.com/web")+claim, "shop/towpath.yaml: rule no-latest-tag (policies/all.yaml:4 of source platform) refuses Deployment.apps "+w.Namespace+
		"/web on target staging (shop/manifests/web.yaml:2): container app has the image example.com/web, which is another one tomorrow; name a version other than latest, or a digest")
	one := strings.Replace(workload("web", "example.com/web:2"), "replicas: 2", "replicas: 1", 1)
	refused("one replica", one+claim, "rule two-replicas-in-production (policies/all.yaml:5 of source platform) refuses Deployment.apps "+w.Namespace+"/web on target prod")
	refused("no claim", workload("web", "example.com/web:2"), "rule keep-volumes (policies/all.yaml:6 of source platform) refuses the removal of PersistentVolumeClaim "+w.Namespace+
		"/data from target staging (shop/manifests/web.yaml:")
	if out := must(t, w, "why", "shop"); !strings.Contains(out, "its file is not deployed as it is now: shop/towpath.yaml:") || !strings.Contains(out, "keep-volumes") {
		t.Errorf("why: %s", out)
	}
	expectImages(t, w, "prod", map[string]int64{"example.com/web:1": 2})

	expectState(t, w.Ended(w.Deployment("shop", w.Commit("mended", gitserver.Files{"shop/manifests/web.yaml": workload("web", "example.com/web:2") + claim})).ID), "SUCCEEDED")
	shows(t, w, "")
	expectImages(t, w, "prod", map[string]int64{"example.com/web:2": 2})
}
