package render_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"towpath/internal/testkit/sopsfile"
	"towpath/render"
	"towpath/render/sops"
)

// opening renders an entry with the keys of a file, for which nobody else has an answer.
func opening(t *testing.T, pool *render.Pool, f files, entry string, key ...sopsfile.Key) render.Result {
	t.Helper()
	result, err := pool.Render(t.Context(), render.Request{Tree: f.tree(t), File: asked(t, entry), Target: "prod", Tenant: "main", Keys: func() (sops.Keys, error) {
		var files sops.KeyFiles
		for _, k := range key {
			files.Age = append(files.Age, k.File)
		}
		return files.Read()
	}})
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// holds is what the Secrets of a result hold, as a cluster keeps it: NAME.KEY → value.
func holds(t *testing.T, r render.Result) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, o := range r.Objects {
		if o.Kind != "Secret" {
			continue
		}
		var secret struct {
			Data       map[string][]byte
			StringData map[string]string
		}
		if err := json.Unmarshal(o.JSON, &secret); err != nil {
			t.Fatalf("%v in %s", err, o.JSON)
		}
		name := o.Name
		if i := strings.LastIndexByte(name, '-'); i > 0 && strings.HasPrefix(name, "made-") {
			name = name[:i] // the hash that kustomize adds
		}
		for key, value := range secret.Data {
			all[name+"."+key] = string(value)
		}
		for key, value := range secret.StringData {
			all[name+"."+key] = value
		}
	}
	return all
}

const b64 = "cGxhaW4gZGF0YQ==" // "plain data"

func TestEncryptedFilesBecomeSecrets(t *testing.T) {
	t.Parallel()
	pool := newPool(t, render.Limits{})
	key := sopsfile.NewKey(t)
	const hard = "p\"a'ss\\: #1\nsecond line ü"
	quoted, err := json.Marshal(hard)
	if err != nil {
		t.Fatal(err)
	}
	secret := key.YAML(t, "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {encoded: "+b64+"}\nstringData: {password: "+string(quoted)+", empty: ''}\n", "^(data|stringData)$")
	kustomization := files{"app/k/kustomization.yaml": `
resources: [secret.yaml]
secretGenerator:
  - {name: made-env, envs: [settings.env]}
  - {name: made-files, files: [config.json, config.yaml, blob.bin, renamed=settings.env]}
`, "app/k/secret.yaml": secret, "app/k/settings.env": key.Dotenv(t, "USER=shop", "PASSWORD=a=b 'c'"),
		"app/k/config.json": key.JSON(t, "password", hard, "user", "shop"), "app/k/config.yaml": key.YAML(t, "db: {password: "+string(quoted)+"}\n", ""), "app/k/blob.bin": key.Whole(t, "bin\x01ary\n")}
	values := key.YAML(t, "password: "+string(quoted)+"\nuser: shop\nregistry: {user: me, password: secret-word}\n", "")
	helm := files{"app/chart/Chart.yaml": "apiVersion: v2\nname: web\nversion: 1.0.0\n", "app/values.yaml": values, "app/chart/templates/s.yaml": `
apiVersion: v1
kind: Secret
metadata: {name: s}
stringData:
  direct: {{ .Values.password | quote }}
  url: postgres://{{ .Values.user }}:{{ .Values.registry.password }}@db/shop
  bare: {{ .Values.user }}
data:
  encoded: {{ .Values.password | b64enc }}
  docker: {{ printf "{\"auths\":{\"r\":{\"password\":%q,\"auth\":%q}}}" .Values.registry.password (printf "%s:%s" .Values.registry.user .Values.registry.password | b64enc) | b64enc }}
  file: {{ .Files.Get "inner.json" | b64enc }}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: d}
spec: {template: {metadata: {annotations: {checksum/secret: {{ .Values.password | sha256sum }}}}}}
`, "app/chart/inner.json": key.JSON(t, "a", hard)}

	for name, c := range map[string]struct {
		files files
		entry string
		want  map[string]string
	}{
		"a manifest":      {files{"app/secret.yaml": secret}, "{path: secret.yaml}", map[string]string{"s.encoded": "plain data", "s.password": hard, "s.empty": ""}},
		"a list":          {files{"app/secret.yaml": key.YAML(t, "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Secret, metadata: {name: s}, stringData: {a: b}}\n", "stringData")}, "{path: secret.yaml}", map[string]string{"s.a": "b"}},
		"a kustomization": {kustomization, "{kustomize: {path: k}}", map[string]string{"s.encoded": "plain data", "s.password": hard, "s.empty": "", "made-env.USER": "shop", "made-env.PASSWORD": "a=b 'c'", "made-files.blob.bin": "bin\x01ary\n", "made-files.renamed": "USER=shop\nPASSWORD=a=b 'c'\n"}},
		"a chart": {helm, "{helm: {path: chart, valueFiles: [values.yaml]}}", map[string]string{"s.direct": hard, "s.url": "postgres://shop:secret-word@db/shop", "s.bare": "shop", "s.encoded": hard,
			"s.docker": `{"auths":{"r":{"password":"secret-word","auth":"` + base64.StdEncoding.EncodeToString([]byte("me:secret-word")) + `"}}}`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			result := opening(t, pool, c.files, c.entry, key)
			if result.Failed() {
				t.Fatal(said(result))
			}
			got := holds(t, result)
			for of, want := range map[string]string{"made-files.config.json": "password", "s.file": "a"} {
				if text, found := got[of]; found {
					var inner map[string]string
					if err := json.Unmarshal([]byte(text), &inner); err != nil || inner[want] != hard {
						t.Errorf("%s: %v in %s", of, err, text)
					}
					delete(got, of)
				}
			}
			if text, found := got["made-files.config.yaml"]; found {
				if want := "db:\n    password: " + string(quoted) + "\n"; text != want {
					t.Errorf("got %q, want %q", text, want)
				}
				delete(got, "made-files.config.yaml")
			}
			if !maps.Equal(got, c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
			for _, o := range result.Objects {
				if strings.Contains(string(o.JSON), sops.Prefix) {
					t.Errorf("a placeholder is left: %s", o.JSON)
				}
			}
		})
	}
}

func TestARenderWithoutKeysHasPlaceholdersAndTheSameName(t *testing.T) {
	t.Parallel()
	pool := newPool(t, render.Limits{})
	key := sopsfile.NewKey(t)
	manifest := func(password string) files {
		return files{"app/secret.yaml": key.YAML(t, "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: "+password+", user: shop}\n", "^password$")}
	}
	first, second := manifest("hunter2"), manifest("hunter2")
	render1 := func(f files, tenant string, keys func() (sops.Keys, error)) render.Result {
		t.Helper()
		result, err := pool.Render(t.Context(), render.Request{Tree: f.tree(t), File: asked(t, "{path: secret.yaml}"), Target: "prod", Tenant: tenant, Keys: keys})
		if err != nil || result.Failed() {
			t.Fatal(err, said(result))
		}
		return result
	}
	masked := render1(first, "main", nil)
	if got := holds(t, masked); !sops.Placeholder.MatchString(got["s.password"]) || got["s.user"] != "shop" {
		t.Errorf("got %q", got)
	}
	opened := render1(first, "main", sops.KeyFiles{Age: []string{key.File}}.Read)
	if got := holds(t, opened); got["s.password"] != "hunter2" || opened.Digest != masked.Digest || string(opened.Trace.Text()) != string(masked.Trace.Text()) {
		t.Errorf("got %q, %s and %s", got, opened.Digest, masked.Digest)
	}
	plain := opening(t, pool, files{"app/secret.yaml": string(masked.Objects[0].JSON)}, "{path: secret.yaml}", key)
	if elsewhere := render1(first, "other", nil); elsewhere.Digest == masked.Digest || plain.Failed() || plain.Digest == masked.Digest {
		t.Error("another tenant, or who writes a placeholder, comes to the same name")
	}
	if again := render1(second, "main", nil); again.Digest == masked.Digest {
		t.Error("a value that was encrypted anew has the same name")
	}
	if opened.Trace.Fresh(second.tree(t)) || !opened.Trace.Fresh(first.tree(t)) {
		t.Error("the encrypted file is not in the trace")
	}
}

func TestWhatIsEncryptedStandsInSecretsOnly(t *testing.T) {
	t.Parallel()
	pool := newPool(t, render.Limits{})
	key := sopsfile.NewKey(t)
	templated := func(text string) files {
		return files{"app/chart/Chart.yaml": "apiVersion: v2\nname: web\nversion: 1.0.0\n", "app/values.yaml": key.YAML(t, "db: {password: hunter2}\n", ""), "app/chart/templates/o.yaml": text}
	}
	const chart, plain = "{helm: {path: chart, valueFiles: [values.yaml]}}", "{path: o.yaml}"
	head := func(kind string) string { return "apiVersion: v1\nkind: " + kind + "\nmetadata: {name: o}\n" }
	const only = "stands here; what is encrypted with SOPS may stand only in data and stringData of Secrets"
	const before = " before it came here (upper, trunc, replace, …); such values can only be written as they are, or in base64"
	const changed, unknown = "a template changed the value db.password of app/values.yaml" + before, "a template changed an encrypted value" + before
	const mangled = ".Values.db.password | replace \"Sops\" \"\""
	for name, c := range map[string]struct {
		files files
		entry string
		want  string
	}{
		"a ConfigMap":         {templated(head("ConfigMap") + "data: {a: b, password: {{ .Values.db.password }}}\n"), chart, "ConfigMap ns/o, data.password: the value db.password of app/values.yaml " + only},
		"a longer text":       {templated(head("ConfigMap") + "data: {url: 'x://{{ .Values.db.password }}@h'}\n"), chart, "ConfigMap ns/o, data.url: the value db.password of app/values.yaml " + only},
		"in base64":           {templated(head("ConfigMap") + "binaryData: {p: {{ .Values.db.password | b64enc }}}\n"), chart, "ConfigMap ns/o, binaryData.p: the value db.password of app/values.yaml " + only},
		"in capitals":         {templated(head("ConfigMap") + "data: {p: {{ .Values.db.password | upper }}}\n"), chart, "ConfigMap ns/o, data.p: the value db.password of app/values.yaml " + only},
		"a key":               {templated(head("ConfigMap") + "data: {{ printf \"{%s: b}\" .Values.db.password }}\n"), chart, "ConfigMap ns/o, data.TowpathSopsValue"},
		"a list":              {templated(head("Pod") + "spec: {containers: [{name: a}, {name: b, env: [{name: P, value: {{ .Values.db.password }}}]}]}\n"), chart, "Pod ns/o, spec.containers[1].env[0].value: the value db.password of app/values.yaml " + only},
		"a Secret's name":     {templated("apiVersion: v1\nkind: Secret\nmetadata: {name: {{ .Values.db.password }}}\n"), chart, ", metadata.name: the value db.password of app/values.yaml " + only},
		"a Secret's label":    {templated("apiVersion: v1\nkind: Secret\nmetadata: {name: o, labels: {a: {{ .Values.db.password }}}}\nstringData: {a: {{ .Values.db.password }}}\n"), chart, "Secret ns/o, metadata.labels.a: the value db.password of app/values.yaml " + only},
		"a Secret's key":      {templated(head("Secret") + "stringData: {{ printf \"{%s: b}\" .Values.db.password }}\n"), chart, "Secret ns/o, stringData.TowpathSopsValue"},
		"another's Secret":    {templated("apiVersion: example.com/v1\nkind: Secret\nmetadata: {name: o}\nstringData: {a: {{ .Values.db.password }}}\n"), chart, "Secret.example.com ns/o, stringData.a: the value db.password of app/values.yaml " + only},
		"not text":            {templated(head("Secret") + "stringData: {a: [{{ .Values.db.password }}]}\n"), chart, "Secret ns/o, stringData.a[0]: the value db.password of app/values.yaml " + only},
		"a part of it":        {templated(head("Secret") + "stringData: {a: {{ .Values.db.password | trunc 30 }}}\n"), chart, "Secret ns/o, stringData.a: " + changed},
		"capitals":            {templated(head("Secret") + "data: {a: {{ .Values.db.password | upper | b64enc }}}\n"), chart, "Secret ns/o, data.a: " + changed},
		"a shorter part":      {templated(head("Secret") + "stringData: {a: 'x {{ .Values.db.password | trunc 10 }}'}\n"), chart, "Secret ns/o, stringData.a: " + unknown},
		"its end":             {templated(head("Secret") + "stringData: {a: {{ .Values.db.password | trunc -12 | quote }}}\n"), chart, "Secret ns/o, stringData.a: " + changed},
		"without letters":     {templated(head("Secret") + "stringData: {a: {{ " + mangled + " }}}\n"), chart, "Secret ns/o, stringData.a: " + changed},
		"that, encoded":       {templated(head("Secret") + "data: {a: {{ " + mangled + " | b64enc }}}\n"), chart, "Secret ns/o, data.a: " + changed},
		"that, elsewhere":     {templated(head("ConfigMap") + "data: {a: {{ " + mangled + " }}}\n"), chart, "ConfigMap ns/o, data.a: the value db.password of app/values.yaml " + only},
		"that, both":          {templated(head("ConfigMap") + "data: {a: {{ " + mangled + " | b64enc }}}\n"), chart, "ConfigMap ns/o, data.a: the value db.password of app/values.yaml " + only},
		"a part, encoded":     {templated(head("ConfigMap") + "data: {a: {{ .Values.db.password | trunc 12 | b64enc }}}\n"), chart, "ConfigMap ns/o, data.a: an encrypted value " + only},
		"data that is none":   {templated(head("Secret") + "data: {a: {{ .Values.db.password }}}\n"), chart, "Secret ns/o, data.a: a decrypted value stands in it as it is, and data holds base64: encrypt the base64 of it, or write the value under stringData"},
		"a made one":          {templated(head("Secret") + "stringData: {a: {{ .Values.db.password }}, b: " + sops.Prefix + strings.Repeat("0", 32) + "}\n"), chart, "stands for an encrypted value of no file that is read here"},
		"a whole manifest":    {files{"app/o.yaml": key.YAML(t, head("ConfigMap")+"data: {a: b}\n", "^data$")}, plain, "ConfigMap ns/o, data.a: the value data.a of app/o.yaml " + only},
		"an encrypted kind":   {files{"app/o.yaml": key.YAML(t, head("Secret")+"stringData: {a: b}\n", "")}, plain, ", "},
		"lost metadata":       {files{"app/o.yaml": head("Secret") + "stringData: {a: b, c: 'ENC[AES256_GCM,data:x]'}\n"}, plain, "Secret ns/o, stringData.c: the value is encrypted with SOPS, and cannot be decrypted: it is from a packed chart or an address, or its file has lost its metadata (sops)"},
		"text that is none":   {files{"app/k/kustomization.yaml": "secretGenerator: [{name: a, files: [b.bin]}]\n", "app/k/b.bin": key.Whole(t, "\xff\xfe")}, "{kustomize: {path: k}}", ""},
		"no text as a string": {files{"app/chart/Chart.yaml": "apiVersion: v2\nname: web\nversion: 1.0.0\n", "app/chart/b.bin": key.Whole(t, "\xff\xfe"), "app/chart/templates/o.yaml": head("Secret") + "stringData: {a: {{ .Files.Get \"b.bin\" }}}\n"}, "{helm: {path: chart}}", "Secret ns/o, stringData.a: a decrypted value is no UTF-8 text; such a value stands in data, as a secretGenerator writes it"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			result := opening(t, pool, c.files, c.entry, key)
			if c.want == "" {
				if result.Failed() {
					t.Error(said(result))
				}
				return
			}
			text := said(result)
			if !result.Failed() || !strings.Contains(text, c.want) || result.Objects != nil || result.Digest != "" || result.Trace.Retry {
				t.Errorf("got  %s\nwant %s", text, c.want)
			}
			if strings.Contains(text, "hunter2") || strings.Contains(string(result.Trace.Text()), "hunter2") {
				t.Errorf("the value is told: %s", text)
			}
			if masked := run(t, pool, c.files, c.entry); strings.Contains(c.want, only) && !masked.Failed() {
				t.Error("without keys it was let through")
			}
		})
	}
}

func TestAFileThatCannotBeOpenedIsNamedAndTriedAgainWhereAKeyWouldDo(t *testing.T) {
	t.Parallel()
	pool := newPool(t, render.Limits{})
	key, other := sopsfile.NewKey(t), sopsfile.NewKey(t)
	secret := key.YAML(t, "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: b, c: d}\n", "^(a|c)$")
	secrets := files{"app/secret.yaml": secret}
	const entry = "{path: secret.yaml}"
	is := func(r render.Result, retry bool, want string) {
		t.Helper()
		if text := said(r); text != want || r.Trace.Retry != retry || r.Objects != nil || r.Trace.Fresh(secrets.tree(t)) == retry {
			t.Errorf("got  %s (%t)\nwant %s", text, r.Trace.Retry, want)
		}
	}
	begin := "error: app/secret.yaml: it is encrypted with SOPS for " + key.Recipient()
	is(opening(t, pool, secrets, entry), true, begin+", and there is no key for this repository; name a file with one under sops in the controller's configuration")
	is(opening(t, pool, secrets, entry, other), true, begin+"; there are keys of "+other.Recipient()+": encrypt it for one of these, too (sops rotate --add-age, sops updatekeys), or add a key to sops in the controller's configuration")
	is(opening(t, pool, secrets, entry, sopsfile.Key{File: "/nonexistent/key"}), true, "error: a key for files that are encrypted with SOPS: open /nonexistent/key: no such file or directory")
	if r := opening(t, pool, secrets, entry, other, key); r.Failed() || r.Trace.Retry {
		t.Error(said(r))
	}
	secrets["app/secret.yaml"] = strings.Replace(secret, "name: s", "name: t", 1)
	is(opening(t, pool, secrets, entry, key), false, "error: app/secret.yaml: its MAC does not match its values: something was added, removed, moved or changed since it was encrypted; encrypt it again (sops edit)")
	if r := opening(t, pool, files{"app/k/secret.ini": "[sops]\nmac = ENC[AES256_GCM,\n", "app/k/kustomization.yaml": "secretGenerator: [{name: a, files: [secret.ini]}]\n"}, "{kustomize: {path: k}}", key); !strings.Contains(said(r), "it is an INI file that is encrypted with SOPS; that is not supported") {
		t.Error(said(r))
	}
}

func TestAnEncryptedFileThatNoSecretNeedsIsNotOpened(t *testing.T) {
	t.Parallel()
	pool := newPool(t, render.Limits{})
	key := sopsfile.NewKey(t)
	tree := files{"app/chart/Chart.yaml": "apiVersion: v2\nname: web\nversion: 1.0.0\n", "app/chart/templates/o.yaml": settings("o", "1"), "app/chart/secrets.yaml": key.YAML(t, "a: b\n", ""),
		"app/chart/values.yaml": key.YAML(t, "c: d\n", "")}
	result, err := pool.Render(t.Context(), render.Request{Tree: tree.tree(t), File: asked(t, "{helm: {path: chart}}"), Target: "prod", Keys: func() (sops.Keys, error) {
		t.Error("a key was asked for")
		return sops.Keys{}, errors.New("none")
	}})
	if err != nil || result.Failed() || len(result.Objects) != 1 {
		t.Errorf("%v, %s", err, said(result))
	}
}

func TestDecryptedValuesCountForTheSizeOfAll(t *testing.T) {
	t.Parallel()
	pool := newPool(t, render.Limits{OutputBytes: 1 << 20})
	key := sopsfile.NewKey(t)
	tree := files{"app/values.yaml": key.YAML(t, "large: "+strings.Repeat("x", 100_000)+"\n", ""), "app/chart/Chart.yaml": "apiVersion: v2\nname: web\nversion: 1.0.0\n",
		"app/chart/templates/o.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: o}\nstringData: {a: {{ repeat 20 .Values.large }}}\n"}
	const want = "Secret ns/o, stringData.a: decrypted values make the objects larger than all that is deployed at once may be"
	if r := opening(t, pool, tree, "{helm: {path: chart, valueFiles: [values.yaml]}}", key); !strings.Contains(said(r), want) {
		t.Error(said(r))
	}
}

// What a worker reads and says is the whole of what it knows: a program between the two writes all of it down.
func TestAWorkerNeverSeesWhatIsEncrypted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script := filepath.Join(dir, "tap.sh")
	text := "#!/bin/sh\n/usr/bin/tee " + dir + "/in | " + os.Args[0] + " render-worker | /usr/bin/tee " + dir + "/out\n"
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil { //nolint:gosec // it is run
		t.Fatal(err)
	}
	pool := render.NewPool(render.Config{Program: []string{"/bin/sh", script}, Workers: 1})
	key := sopsfile.NewKey(t)
	tree := files{"app/values.yaml": key.YAML(t, "password: hunter2-hunter2\n", ""), "app/chart/Chart.yaml": "apiVersion: v2\nname: web\nversion: 1.0.0\n",
		"app/chart/templates/o.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: o}\nstringData: {a: {{ .Values.password }}}\n"}
	result := opening(t, pool, tree, "{helm: {path: chart, valueFiles: [values.yaml]}}", key)
	if got := holds(t, result); got["o.a"] != "hunter2-hunter2" {
		t.Fatalf("%q, %s", got, said(result))
	}
	if err := pool.Close(); err != nil {
		t.Fatal(err)
	}
	identity, err := os.ReadFile(key.File)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"in", "out"} {
		seen, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !strings.Contains(string(seen), sops.Prefix) {
			t.Fatalf("%v: no placeholder went through: %q", err, seen)
		}
		for _, hidden := range []string{"hunter2", "ENC[AES256_GCM", key.Recipient(), strings.Fields(string(identity))[4]} {
			if strings.Contains(string(seen), hidden) {
				t.Errorf("%s holds %s", name, hidden)
			}
		}
	}
}

// A placeholder in base64 that begins in the middle of a run of such letters is no value, and must not be deployed as one; nor what nobody decrypts.
func TestWhatCannotBeTakenApartIsRefused(t *testing.T) {
	t.Parallel()
	pool := newPool(t, render.Limits{})
	key := sopsfile.NewKey(t)
	chart := func(values, secret string) files {
		return files{"app/values.yaml": values, "app/chart/Chart.yaml": "apiVersion: v2\nname: web\nversion: 1.0.0\n",
			"app/chart/templates/s.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n" + secret}
	}
	encrypted := key.YAML(t, "p: hunter2\n", "")
	const lost = "p: ENC[AES256_GCM,data:eHh4,iv:eHh4,tag:eHh4,type:str]\n"
	for name, c := range map[string]struct {
		files files
		want  string
	}{
		"one letter before":     {chart(encrypted, `stringData: {a: "x{{ .Values.p | b64enc }}"}`), "cannot be told from them"},
		"a path before":         {chart(encrypted, `stringData: {a: "https://h/v1/{{ .Values.p | b64enc }}"}`), "cannot be told from them"},
		"three letters before":  {chart(encrypted, `stringData: {a: "xyz{{ .Values.p | b64enc }}"}`), "cannot be told from them"},
		"lost metadata":         {chart(lost, `stringData: {a: "postgres://u:{{ .Values.p }}@h"}`), "its file has lost its metadata (sops)"},
		"lost, and in base64":   {chart(lost, `data: {a: "{{ .Values.p | b64enc }}"}`), "its file has lost its metadata (sops)"},
		"lost, and within text": {chart(lost, `data: {a: "{{ printf "%s=%s" "k" .Values.p | b64enc }}"}`), "its file has lost its metadata (sops)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := opening(t, pool, c.files, "{helm: {path: chart, valueFiles: [values.yaml]}}", key)
			if got := said(r); !strings.Contains(got, c.want) || len(r.Objects) > 0 {
				t.Errorf("%s, with %d objects\nwant %s", got, len(r.Objects), c.want)
			}
		})
	}
	good := opening(t, pool, chart(encrypted, `stringData: {a: "https://h/v1?p={{ .Values.p | b64enc }}"}`), "{helm: {path: chart, valueFiles: [values.yaml]}}", key)
	if got := holds(t, good)["s.a"]; got != "https://h/v1?p=aHVudGVyMg==" {
		t.Errorf("told apart it is %q: %s", got, said(good))
	}
}

func TestAPageThatShowsAnEncryptedFileIsNone(t *testing.T) {
	t.Parallel()
	pool := newPool(t, render.Limits{})
	r := opening(t, pool, files{"app/chart/Chart.yaml": "apiVersion: v2\nname: web\nversion: 1.0.0\n", "app/chart/templates/o.yaml": settings("o", "1"),
		"app/chart/README.md": "# How to\n\n```yaml\npassword: ENC[AES256_GCM,data:x]\nsops:\n  mac: x\n```\n* [a: b\n"}, "{helm: {path: chart}}")
	if r.Failed() || len(r.Objects) != 1 {
		t.Errorf("%d objects: %s", len(r.Objects), said(r))
	}
}
