package e2e

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"towpath/internal/testkit/gitserver"
	"towpath/internal/testkit/sopsfile"
	"towpath/internal/testkit/world"
)

// sealing is a Secret, as it is written before it is encrypted.
func sealing(name, value string) string {
	return "apiVersion: v1\nkind: Secret\nmetadata: {name: " + name + "}\nstringData: {password: " + value + "}\n"
}

// inCluster is the password that a Secret has on a cluster.
func inCluster(t *testing.T, w *world.World, cluster, name string) string {
	t.Helper()
	o := w.Objects(cluster, "v1 secrets")[name]
	if o == nil {
		return ""
	}
	data, _ := o.Object["data"].(map[string]any)
	text, err := base64.StdEncoding.DecodeString(fmt.Sprint(data["password"]))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestWhatIsEncryptedWithSOPSIsDeployedOnceThereIsAKey(t *testing.T) {
	t.Parallel()
	key, replaced := sopsfile.NewKey(t), sopsfile.NewKey(t)
	right, err := os.ReadFile(key.File)
	if err != nil {
		t.Fatal(err)
	}
	mounted := filepath.Join(t.TempDir(), "age.txt")
	wrong, err := os.ReadFile(replaced.File)
	if err == nil {
		err = os.WriteFile(mounted, wrong, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	files := shop("example.com/web:1")
	files["shop/manifests/secret.yaml"] = key.YAML(t, sealing("sealed", "first-password"), "^stringData$")
	settings := fmt.Sprintf("sops:\n  - {ageKeyFiles: [%q]}\n  - {ageKeyFiles: [%q], tenant: other}\n  - {ageKeyFiles: [%[2]q], sources: [elsewhere]}\n", mounted, key.File)
	w := world.New(t, &shared, files, world.Configuration(settings))
	shows(t, w, "shop/towpath.yaml: shop/manifests/secret.yaml: it is encrypted with SOPS for "+key.Recipient()+"; there are keys of "+replaced.Recipient()+": encrypt it for one of these, too")

	// The key comes without a commit.
	if err := os.WriteFile(mounted, right, 0o600); err != nil {
		t.Fatal(err)
	}
	w.Announce()
	expectState(t, w.Ended(w.Deployment("shop", w.Repository.Head("main")).ID), "SUCCEEDED")
	for _, cluster := range []string{"staging", "prod"} {
		if got := inCluster(t, w, cluster, "sealed"); got != "first-password" {
			t.Errorf("%s has the password %q", cluster, got)
		}
	}

	// Another value is another deployment; one that something was changed in by hand is none.
	changed := w.Commit("another password", gitserver.Files{"shop/manifests/secret.yaml": key.YAML(t, sealing("sealed", "second-password"), "^stringData$")})
	expectState(t, w.Ended(w.Deployment("shop", changed).ID), "SUCCEEDED")
	if got := inCluster(t, w, "prod", "sealed"); got != "second-password" {
		t.Errorf("prod has the password %q", got)
	}
	forged := strings.Replace(key.YAML(t, sealing("sealed", "third-password"), "^stringData$"), "name: sealed", "name: forged", 1)
	w.Commit("a forged one", gitserver.Files{"shop/manifests/secret.yaml": forged})
	shows(t, w, "shop/manifests/secret.yaml: its MAC does not match its values: something was added, removed, moved or changed since it was encrypted; encrypt it again (sops edit)")

	// The first one comes back from what was sealed.
	must(t, w, "deploy", "rollback", "shop", "prod", "--reason", "a test", "--watch")
	if got := inCluster(t, w, "prod", "sealed"); got != "first-password" {
		t.Errorf("prod has the password %q after going back", got)
	}
}

func TestAPushOfWhatIsEncryptedWithSOPSNeedsNoKeyWhereItIsPushedFrom(t *testing.T) {
	t.Parallel()
	key := sopsfile.NewKey(t)
	w := world.New(t, &shared, shop("example.com/web:1"), world.Configuration(fmt.Sprintf("sops: [{ageKeyFiles: [%q], sources: [push], applications: [pushed]}]\n", key.File)))
	push := func(application string) (code int, said string) {
		t.Helper()
		dir := t.TempDir()
		for name, text := range map[string]string{"towpath.yaml": "application: " + application + "\ntargets: {prod: {account: prod, namespace: " + w.Namespace + "}}\nmanifests: [{path: secret.yaml}]\n",
			"secret.yaml": key.YAML(t, sealing(application, "pushed-password"), "^stringData$")} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		code, out, errs := w.Towpath(dir, nil, "deploy", "start", "-f", "towpath.yaml", "--watch")
		return code, out + errs
	}
	if code, said := push("pushed"); code != 0 || strings.Contains(said, "pushed-password") {
		t.Errorf("exit %d: %s", code, said)
	}
	if got := inCluster(t, w, "prod", "pushed"); got != "pushed-password" {
		t.Errorf("prod has the password %q", got)
	}
	if code, said := push("another"); code == 0 || !strings.Contains(said, "secret.yaml: it is encrypted with SOPS for "+key.Recipient()+", and there is no key for this repository") {
		t.Errorf("exit %d: %s", code, said)
	}
}
