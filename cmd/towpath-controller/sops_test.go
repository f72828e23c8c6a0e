package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"towpath/cluster"
	"towpath/cmd/towpath-controller/config"
	"towpath/deployment"
	"towpath/gitsource"
	"towpath/internal/testkit/sopsfile"
	"towpath/reconcile"
	"towpath/render"
	"towpath/render/sops"
)

func TestKeysOpenFilesOfTheirTenantSourceAndApplication(t *testing.T) {
	t.Parallel()
	one, two := sopsfile.NewKey(t), sopsfile.NewKey(t)
	all := []config.SOPS{{Tenant: "main", AgeKeyFiles: []string{one.File}, Sources: []string{"shop-*", "push"}, Applications: []string{"web*"}}, {Tenant: "other", AgeKeyFiles: []string{two.File}}}
	for _, c := range []struct{ tenant, source, application, want string }{
		{"main", "shop-a", "web", one.Recipient()}, {"main", "", "web-2", one.Recipient()}, {"main", "shop", "web", ""}, {"main", "shop-a", "api", ""},
		{"other", "shop-a", "web", two.Recipient()}, {"other", "", "any", two.Recipient()}, {"third", "shop-a", "web", ""},
	} {
		if keys, err := sopsKeys(all, c.tenant, c.source, c.application); err != nil || keys.String() != c.want {
			t.Errorf("%+v: got %q, %v", c, keys, err)
		}
	}
}

func TestCheckReadsKeysForSOPS(t *testing.T) {
	t.Parallel()
	key := sopsfile.NewKey(t)
	bad := filepath.Join(t.TempDir(), "bad")
	if err := os.WriteFile(bad, []byte("AGE-SECRET-KEY-1HUNTER2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"{ageKeyFiles: [" + key.File + "]}": "",
		"{ageKeyFiles: [" + bad + "]}":      "sops[0]: " + bad + ":1: not a private key of age; such a line begins with AGE-SECRET-KEY-1, and age-keygen makes one",
		"{pgpKeyFiles: [" + bad + "]}":      "sops[0]: " + bad + " holds no PGP key; gpg --export-secret-keys FINGERPRINT makes such a file",
		"{ageKeyFiles: [/nonexistent/age]}": "sops[0]: open /nonexistent/age: no such file or directory",
	} {
		err := check(configure(t, "sops: ["+text+"]\n"))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "HUNTER2")) {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
}

// What is only looked at, such as a proof of what is recorded, comes to the same without a key.
func TestAMaskedRenderNeedsNoKeyAndHasTheName(t *testing.T) {
	t.Parallel()
	key := sopsfile.NewKey(t)
	text := []byte("application: a\ntargets: {prod: {account: prod, namespace: ns}}\nmanifests: [{path: secret.yaml}]\n")
	file, problems := deployment.Parse("towpath.yaml", text)
	tree, err := gitsource.NewTree(map[string][]byte{"towpath.yaml": text, "secret.yaml": []byte(key.YAML(t, "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: hunter2}\n", "^stringData$"))}, gitsource.Limits{})
	if err != nil || file == nil {
		t.Fatal(err, problems)
	}
	pool := render.NewPool(render.Config{Program: []string{os.Args[0], renderWorker}, Workers: 1})
	t.Cleanup(func() { pool.Close() })
	manifests := func(masked bool, keys ...config.SOPS) (name, objects string) {
		t.Helper()
		r := &renders{pool, cluster.Reviser{Key: []byte("key")}, func(string, string) render.Capabilities { return render.Capabilities{} }, keys}
		record, err := r.Render(t.Context(), reconcile.RenderRequest{Tree: tree, File: file, Text: text, Target: "prod", Source: "repo", Tenant: "main", Masked: masked})
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range record.Objects {
			objects += string(o.JSON)
		}
		return record.Manifests, objects
	}
	opened, plain := manifests(false, config.SOPS{Tenant: "main", AgeKeyFiles: []string{key.File}})
	masked, shown := manifests(true)
	if opened == "" || opened != masked || !strings.Contains(plain, "hunter2") || strings.Contains(shown, "hunter2") || !sops.Placeholder.MatchString(shown) {
		t.Errorf("%s: %s\n%s: %s", opened, plain, masked, shown)
	}
	if name, objects := manifests(false); name != "" || objects != "" {
		t.Errorf("without a key it came to %s: %s", name, objects)
	}
}
