package e2e

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"towpath/internal/testkit/github"
	"towpath/internal/testkit/gitserver"
	"towpath/internal/testkit/receiver"
	"towpath/internal/testkit/sopsfile"
	"towpath/internal/testkit/world"
)

// secrets are values that nobody else has, by where they stand.
type secrets map[string]string

func newSecrets(t *testing.T, places ...string) secrets {
	t.Helper()
	s := secrets{}
	for _, place := range places {
		s[place] = "q" + strings.ToLower(rand.Text())
	}
	number := make([]byte, 6)
	if _, err := rand.Read(number); err != nil {
		t.Fatal(err)
	}
	s["stringData that is a number"] = "8" + strconv.FormatUint(uint64(number[0])<<40|uint64(number[1])<<32|uint64(number[2])<<24|uint64(number[3])<<16|uint64(number[4])<<8|uint64(number[5]), 10)
	return s
}

// forms is a value as a text may hold it: in clear, and in base64 wherever it begins in what is encoded.
func forms(value string) []string {
	all := []string{value}
	for before := range 3 {
		text := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("\x00", before) + value))
		all = append(all, strings.TrimRight(text[(before*8+5)/6:], "=")[:len(value)*8/6-2])
	}
	return all
}

// in tells which secrets a text holds.
func (s secrets) in(text string) (found []string) {
	for place, value := range s {
		for i, form := range forms(value) {
			if at := strings.Index(text, form); at >= 0 {
				found = append(found, fmt.Sprintf("the %s (form %d) in …%s…", place, i, text[max(0, at-150):min(len(text), at+len(form)+50)]))
				break
			}
		}
	}
	return found
}

// keeping is a Secret with values in each way that one is written.
func (s secrets) keeping(more string) string {
	encoded := base64.StdEncoding.EncodeToString([]byte(s["data"]))
	return `
apiVersion: v1
kind: Secret
metadata:
  name: keeping
  annotations:
    kubectl.kubernetes.io/last-applied-configuration: '{"apiVersion":"v1","kind":"Secret","data":{"was":"` + base64.StdEncoding.EncodeToString([]byte(s["annotation"])) + `"}}'
data: {one: ` + encoded + `}
stringData: {two: ` + s["stringData"] + more + `}
`
}

// charted is a chart that makes a Secret of a value.
func (s secrets) charted() gitserver.Files {
	return gitserver.Files{"shop/chart/Chart.yaml": "apiVersion: v2\nname: chart\nversion: 1.0.0\n", "shop/values.yaml": "inFile: " + s["value file"] + "\n",
		"shop/chart/templates/secret.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: charted}\nstringData: {a: {{ .Values.inline }}, b: {{ .Values.inFile }}, c: {{ .Values.sealed.text }}}\ndata: {d: {{ .Values.sealed.data | b64enc }}}\n"}
}

func TestNoSecretIsFoundWhereItDoesNotBelong(t *testing.T) {
	t.Parallel()
	s := newSecrets(t, "data", "stringData", "annotation", "value file", "helm value", "secret in a header", "secret in a URI", "secret in a body", "password in a URI", "literal header", "metric password",
		"SOPS manifest", "SOPS value", "SOPS value in data", "whole SOPS file", "forged SOPS manifest")
	key := sopsfile.NewKey(t)
	job, hub, dir := receiver.Start(t), github.Start(t), t.TempDir()
	settings := fmt.Sprintf("egress: {allowHosts: [%q], allowPrivate: [%q]}\nmetricProviders: [{name: numbers, type: prometheus, url: 'http://%s', auth: {username: robot, passwordFile: %s}}]\nsecrets:\n",
		job.Host, job.Host, job.Host, filepath.Join(dir, "metric password"))
	for place, value := range s {
		if err := os.WriteFile(filepath.Join(dir, place), []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, place := range []string{"header", "URI", "body"} {
		settings += fmt.Sprintf("  - {name: %s, file: %q, hosts: [%q]}\n", place, filepath.Join(dir, "secret in a "+place), job.Host)
	}
	settings += fmt.Sprintf("sops: [{ageKeyFiles: [%q]}]\n", key.File)
	identity, err := os.ReadFile(key.File)
	if err != nil {
		t.Fatal(err)
	}
	deployment := world.OnProd(`{canary: {steps: [{setWeight: {weight: 50}}, {runWebhook: {name: smoke}}, {analysis: {queries: [q], interval: 1, units: seconds, numberOfJudgmentRuns: 1}}]}}`, `
webhooks:
  - name: smoke
    method: POST
    uriTemplate: "http://robot:`+s["password in a URI"]+`@`+job.Host+`/jobs/{{secrets.URI}}?key={{secrets.URI}}"
    headers: [{key: X-Token, value: "Token {{secrets.header}}"}, {key: X-Literal, value: `+s["literal header"]+`}]
    bodyTemplate: {inline: '{"key": "{{secrets.body}}"}'}
    disableCallback: true
analysis: {defaultMetricProviderName: numbers, queries: [{name: q, upperLimit: 1, queryTemplate: 'q'}]}
`)
	deployment = strings.Replace(deployment, "manifests: [{path: manifests}]", "manifests: [{path: manifests}, {kustomize: {path: sops}}, {helm: {path: chart, valueFiles: [values.yaml, sops.yaml], values: {inline: "+s["helm value"]+"}}}]", 1)
	files := s.charted()
	files["shop/sops.yaml"] = key.YAML(t, "sealed: {text: "+s["SOPS value"]+", data: "+s["SOPS value in data"]+"}\n", "")
	files["shop/sops/kustomization.yaml"] = "resources: [secret.yaml]\nsecretGenerator: [{name: whole, files: [whole.bin]}]\ngeneratorOptions: {disableNameSuffixHash: true}\n"
	files["shop/sops/secret.yaml"], files["shop/sops/whole.bin"] = key.YAML(t, sealing("sealed", s["SOPS manifest"]), "^stringData$"), key.Whole(t, s["whole SOPS file"])
	files["shop/towpath.yaml"], files["shop/manifests/web.yaml"], files["shop/manifests/secret.yaml"] = deployment, four("example.com/web:1"), s.keeping("")
	w := world.New(t, &shared, files, world.Configuration(settings), world.OnGitHub(hub))
	s["API token"], s["signing secret"], s["age key"] = w.API.Token, w.Secret(), strings.Fields(string(identity))[4]
	for _, name := range []string{"staging", "prod"} {
		text, err := os.ReadFile(w.AgentSecretFile(name))
		if err != nil {
			t.Fatal(err)
		}
		s["client secret of agent "+name] = strings.TrimSpace(string(text))
	}
	commits := []string{w.Repository.Head("main")}
	var ids []string
	ended := func(state, why string) {
		t.Helper()
		d := w.Ended(w.Deployment("shop", commits[len(commits)-1]).ID)
		ids = append(ids, d.ID)
		if got := target(t, d, "prod"); got.State != state || !strings.Contains(got.Why, why) {
			t.Errorf("prod is %s: %s", got.State, got.Why)
		}
	}
	merge := func(message string, files gitserver.Files) { commits = append(commits, w.Commit(message, files)) }
	ended("SUCCEEDED", "")
	if got := inCluster(t, w, "prod", "sealed"); got != s["SOPS manifest"] {
		t.Fatalf("what was encrypted is %q on prod", got)
	}

	// Servers that send back all that they were sent.
	echo := func(status int) func(http.ResponseWriter, *http.Request) {
		return func(out http.ResponseWriter, r *http.Request) {
			calls := job.Calls()
			said, _ := json.Marshal(calls[len(calls)-1]) // strings only
			out.Header().Set("Content-Type", "text/plain")
			out.WriteHeader(status)
			fmt.Fprintf(out, "%s %s %s %s", r.Header.Get("X-Token"), r.Header.Get("X-Literal"), r.Header.Get("Authorization"), r.RequestURI)
			_, _ = out.Write(said)
		}
	}
	job.Reply(echo(http.StatusBadRequest))
	merge("a webhook that refuses", gitserver.Files{"shop/manifests/web.yaml": four("example.com/web:2")})
	ended("ROLLED_BACK", "webhook smoke: ")
	job.Reply(func(out http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && strings.HasPrefix(r.URL.Path, "/jobs/") {
			return
		}
		echo(http.StatusBadRequest)(out, r)
	})
	merge("a provider that refuses", gitserver.Files{"shop/manifests/web.yaml": four("example.com/web:3")})
	ended("ROLLED_BACK", "metric provider numbers cannot answer")
	merge("a value that is no text", gitserver.Files{"shop/manifests/web.yaml": four("example.com/web:4"), "shop/manifests/secret.yaml": s.keeping(", three: " + s["stringData that is a number"])})
	ended("ROLLED_BACK", ".stringData.three: expected string")
	merge("values that are no texts", gitserver.Files{"shop/manifests/secret.yaml": s.keeping(", three: {" + s["stringData"] + ": " + s["data"] + "}, four: [" + s["annotation"] + "]")})
	ended("ROLLED_BACK", "failed to create typed patch object")
	merge("a value that is no base64", gitserver.Files{"shop/manifests/secret.yaml": strings.Replace(s.keeping(""), "one: ", "one: -"+s["data"]+", two: ", 1)})
	ended("ROLLED_BACK", "illegal base64 data")
	job.Reply(func(out http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/api/") {
			out.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(out, `{"status":"success","data":{"resultType":"scalar","result":[%d,"0"]}}`, time.Now().Unix())
		}
	})
	merge("good again", gitserver.Files{"shop/manifests/web.yaml": four("example.com/web:5"), "shop/manifests/secret.yaml": s.keeping("")})
	ended("SUCCEEDED", "")
	told := []string{must(t, w, "deploy", "rollback", "shop", "prod", "--reason", "a test", "--watch")}
	merge("a chart that does not render", gitserver.Files{"shop/chart/values.schema.json": `{"properties": {"inline": {"type": "integer"}, "inFile": {"enum": ["a", "b"]}}}`})
	w.Await("the problem with the chart", func() (bool, error) { return len(w.Problems()) > 0, nil })

	merge("a manifest that was encrypted, and then changed", gitserver.Files{"shop/chart/values.schema.json": gitserver.Delete,
		"shop/sops/secret.yaml": strings.Replace(key.YAML(t, sealing("sealed", s["forged SOPS manifest"]), "^stringData$"), "name: sealed", "name: forged", 1)})
	shows(t, w, "shop/sops/secret.yaml: its MAC does not match its values")
	merge("a value outside of Secrets", gitserver.Files{"shop/sops/secret.yaml": gitserver.Delete, "shop/sops/kustomization.yaml": "resources: []\n", "shop/chart/templates/config.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: {{ .Values.sealed.text }}}\n"})
	shows(t, w, ", data.a: the value sealed.text of shop/sops.yaml stands here; what is encrypted with SOPS may stand only in data and stringData of Secrets")

	told = append(told, must(t, w, "why", "shop", "prod"), must(t, w, "deploy", "status", "-i", ids[0]), fmt.Sprint(w.Problems()), fmt.Sprint(w.Events("shop")))
	for _, text := range told {
		for _, found := range s.in(text) {
			t.Errorf("the command line tells %s", found)
		}
	}
	for path, text := range answers(t, w, ids) {
		for _, found := range s.in(text) {
			t.Errorf("GET %s tells %s", path, found)
		}
	}
	for _, commit := range commits {
		for _, found := range s.in(fmt.Sprint(hub.Statuses(world.GitHubRepository, commit))) {
			t.Errorf("GitHub was told %s", found)
		}
	}
	w.CrashController()
	logs := w.Logs()
	if !strings.Contains(logs["controller"], "SIGQUIT") {
		t.Error("the controller did not crash")
	}
	for who, text := range logs {
		for _, found := range s.in(text) {
			t.Errorf("the log of %s holds %s", who, found)
		}
	}
	for where, text := range dump(t, w.Database()) {
		for _, found := range s.in(text) {
			t.Errorf("the database holds, in %s, %s", where, found)
		}
	}
}

// answers is what the API says to each GET that it describes, by the path.
func answers(t *testing.T, w *world.World, ids []string) map[string]string {
	t.Helper()
	authority, err := os.ReadFile(w.CA())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	t.Cleanup(client.CloseIdleConnections)
	get := func(path string) string {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.API.Address+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+w.API.Token)
		answer, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil || answer.StatusCode != http.StatusOK {
			t.Fatalf("GET %s: %s %s %v", path, answer.Status, text, err)
		}
		return string(text)
	}
	var described struct{ Paths map[string]map[string]any }
	if err := json.Unmarshal([]byte(get("/api/v1/openapi.json")), &described); err != nil {
		t.Fatal(err)
	}
	said := map[string]string{"/metrics": get("/metrics")}
	for path, methods := range described.Paths {
		if methods["get"] == nil || strings.HasSuffix(path, "/events") { // a stream without end; Events reads it
			continue
		}
		switch {
		case strings.Contains(path, "{id}"):
			for _, id := range ids {
				at := strings.Replace(path, "{id}", id, 1)
				said[at] = get(at)
			}
		case strings.Contains(path, "/applications/{name}"):
			at := strings.Replace(path, "{name}", "shop", 1)
			said[at] = get(at)
		default:
			at := strings.Replace(path, "{name}", "prod", 1)
			said[at] = get(at)
		}
	}
	if len(said) < len(ids) {
		t.Errorf("only %d answers", len(said))
	}
	return said
}

// dump is all that a database holds, by table and column, and its files as they lie there.
func dump(t *testing.T, file string) map[string]string {
	t.Helper()
	held := map[string]string{}
	for _, name := range []string{file, file + "-wal"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		held[filepath.Base(name)] = string(text)
	}
	db, err := sql.Open("sqlite", file)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var tables []string
	names, err := db.QueryContext(t.Context(), "SELECT name FROM sqlite_master WHERE type = 'table'")
	if err != nil {
		t.Fatal(err)
	}
	for names.Next() {
		var name string
		if err := names.Scan(&name); err != nil {
			t.Fatal(err)
		}
		tables = append(tables, name)
	}
	if err := names.Err(); err != nil || !slices.Contains(tables, "events") {
		t.Fatalf("%v, %v", tables, err)
	}
	for _, table := range tables {
		rows, err := db.QueryContext(t.Context(), `SELECT * FROM "`+table+`"`)
		if err != nil {
			t.Fatal(err)
		}
		columns, err := rows.Columns()
		if err != nil {
			t.Fatal(err)
		}
		values, into := make([]sql.RawBytes, len(columns)), make([]any, len(columns))
		for i := range values {
			into[i] = &values[i]
		}
		text := make([]bytes.Buffer, len(columns))
		for rows.Next() {
			if err := rows.Scan(into...); err != nil {
				t.Fatal(err)
			}
			for i, value := range values {
				text[i].Write(append(value, '\n'))
			}
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		for i, column := range columns {
			held[table+"."+column] = text[i].String()
		}
	}
	return held
}
