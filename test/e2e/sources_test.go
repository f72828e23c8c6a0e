package e2e

import (
	"net/http"
	"strings"
	"testing"

	"towpath/api"
	"towpath/internal/testkit/gitserver"
	"towpath/internal/testkit/world"
)

// shows waits until something is wrong with the repositories' files that has these words; "": until nothing is.
func shows(t *testing.T, w *world.World, words string) {
	t.Helper()
	w.Await("the source to show: "+words, func() (bool, error) {
		var sources struct{ Items []api.Source }
		if err := w.API.Call(t.Context(), http.MethodGet, "/sources", nil, &sources); err != nil {
			return false, err
		}
		var said []string
		for _, s := range sources.Items {
			for _, p := range s.Problems {
				said = append(said, p.File+": "+p.Text)
			}
		}
		all := strings.Join(said, "\n")
		return words == "" && all == "" || words != "" && strings.Contains(all, words), nil
	})
}

func TestWhatAFileWithPruneDeployedGoesWithItsTargetsAndWithIt(t *testing.T) {
	t.Parallel()
	text := file("shop", "  prune: true")
	w := world.New(t, &shared, gitserver.Files{"shop/towpath.yaml": text, "shop/manifests/web.yaml": workload("web", "example.com/web:1")})
	expectState(t, w.Ended(w.Deployment("shop", w.Repository.Head("main")).ID), "SUCCEEDED")

	w.Commit("moved", gitserver.Files{"shop/towpath.yaml": gitserver.Delete, "shop/manifests/web.yaml": gitserver.Delete,
		"store/towpath.yaml": text, "store/manifests/web.yaml": workload("web", "example.com/web:1")})
	moved := w.Ended(w.Deployment("shop", w.Commit("web 2", gitserver.Files{"store/manifests/web.yaml": workload("web", "example.com/web:2")})).ID)
	expectState(t, moved, "SUCCEEDED")
	if moved.Number != 2 {
		t.Errorf("the move itself was deployment #%d", moved.Number-1)
	}
	for _, cluster := range []string{"staging", "prod"} {
		expectImages(t, w, cluster, map[string]int64{"example.com/web:2": 2})
	}

	only := strings.Replace(text, "    constraints: {dependsOn: [staging]}\n", "", 1)
	only = strings.Replace(only, "  staging: {account: staging, namespace: NAMESPACE, strategy: rolling}\n", "", 1)
	expectState(t, w.Ended(w.Deployment("shop", w.Commit("no staging", gitserver.Files{"store/towpath.yaml": only})).ID), "SUCCEEDED")
	w.Await("what is on staging to go", func() (bool, error) {
		return len(w.Images("staging")) == 0 && w.Objects("staging", "v1 services")["web"] == nil && w.Objects("staging", "v1 configmaps")["web"] == nil, nil
	})
	expectImages(t, w, "prod", map[string]int64{"example.com/web:2": 2})

	expectState(t, w.Ended(w.Deployment("shop", w.Commit("gone", gitserver.Files{"store/towpath.yaml": gitserver.Delete})).ID), "SUCCEEDED")
	w.Await("what is on prod to go", func() (bool, error) {
		return len(w.Images("prod")) == 0 && w.Objects("prod", "v1 services")["web"] == nil && w.Objects("prod", "v1 configmaps")["web"] == nil, nil
	})
}

func TestAnApplicationIsNotRenamedWhileItHasObjects(t *testing.T) {
	t.Parallel()
	w := world.New(t, &shared, shop("example.com/web:1"))
	expectState(t, w.Ended(w.Deployment("shop", w.Repository.Head("main")).ID), "SUCCEEDED")
	w.Commit("another name", gitserver.Files{"shop/towpath.yaml": file("store", "")})
	shows(t, w, "shop/towpath.yaml: Deployment.apps "+w.Namespace+"/web on account staging belongs to application shop; this file named it until now, and an application that has objects is not renamed: "+
		"write application: shop again, or delete the file, run towpath app remove shop, and then add the file as store")
	w.Commit("the old name again", gitserver.Files{"shop/towpath.yaml": file("shop", "")})
	shows(t, w, "")
	if all := strings.Join(w.Events("shop"), "\n"); strings.Contains(all, "#2") || strings.Contains(all, "nobody owns them") {
		t.Errorf("it moved:\n%s", all)
	}

	// With objects of its own the new application begins beside the old one, whose objects stay as those of a deleted file do.
	d := w.Deployment("store", w.Commit("another name, and other objects", gitserver.Files{"shop/towpath.yaml": file("store", ""), "shop/manifests/web.yaml": workload("store", "example.com/web:2")}))
	expectState(t, w.Ended(d.ID), "SUCCEEDED")
	expectImages(t, w, "prod", map[string]int64{"example.com/web:1": 2, "example.com/web:2": 2})
	if out := must(t, w, "why", "shop", "prod"); !strings.Contains(out, "what it deployed stays and nobody owns it") {
		t.Errorf("why: %s", out)
	}
}

func TestAnObjectOfTwoApplicationsIsRefusedAndBothAreNamed(t *testing.T) {
	t.Parallel()
	w := first(t, world.OnProd(healing, ""))
	w.Commit("another one with the same Service", gitserver.Files{"other/towpath.yaml": strings.ReplaceAll(world.OnProd(healing, ""), "application: shop", "application: other"),
		"other/manifests/service.yaml": "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: other}, ports: [{port: 80}]}\n"})
	want := "Service " + w.Namespace + "/web on account prod belongs to application shop; application other has it in its manifests, too, and an object has one owner: take it out of one of the two"
	w.Await(want, func() (bool, error) { return strings.Contains(strings.Join(w.Problems(), "\n"), want), nil })
	if service := w.Objects("prod", "v1 services")["web"]; service.Object["spec"].(map[string]any)["selector"].(map[string]any)["app"] != "web" {
		t.Errorf("the Service is %v", service.Object["spec"])
	}
}
