package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"towpath/render"
)

var update = flag.Bool("update", false, "rewrite the generated page")

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == renderWorker {
		if render.Worker(os.Stdin, os.Stdout) != nil {
			os.Exit(1)
		}
		return
	}
	testscript.Main(m, map[string]func(){"towpath": main})
}

// towpath runs the command line with an environment of its own.
func towpath(t *testing.T, env map[string]string, args ...string) (code int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	c := &commandLine{out: &stdout, err: &stderr, getenv: func(name string) string { return env[name] }}
	return c.run(t.Context(), args), stdout.String(), stderr.String()
}

func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const good = "application: a\ntargets: {t: {account: x, namespace: n, strategy: s}}\nmanifests: [{path: m.yaml}]\nstrategies: {s: {canary: {steps: [{setWeight: {weight: 100}}]}}}\n"

func TestValidateSaysWhatIsWrongAndExitsWithOne(t *testing.T) {
	dir := write(t, map[string]string{"good.yml": good, "bad.yml": "application: a\ntargetz: {}\n"})
	if code, out, _ := towpath(t, nil, "validate", filepath.Join(dir, "good.yml")); code != 0 || out != "YAML is valid.\n" {
		t.Errorf("good: %d %q", code, out)
	}
	bad := filepath.Join(dir, "bad.yml")
	code, out, errs := towpath(t, nil, "validate", bad)
	if code != 1 || !strings.Contains(out, bad+":2:1: error: unknown key targetz;") || !strings.Contains(out, "did you mean targets?") || errs != "" {
		t.Errorf("bad: %d\n%s%s", code, out, errs)
	}
	warned := filepath.Join(write(t, map[string]string{"warned.yml": good + "webhooks: [{name: w, method: POST, uriTemplate: 'https://ci.example.com/{{context.cluster}}'}]\n"}), "warned.yml")
	for _, c := range []struct {
		args []string
		code int
	}{{[]string{warned}, 0}, {[]string{"--strict", warned}, 1}, {[]string{"--strict", filepath.Join(dir, "good.yml")}, 0}} {
		code, out, _ := towpath(t, nil, append([]string{"validate"}, c.args...)...)
		if code != c.code || strings.Contains(out, "YAML is valid.\n") != (code == 0) || slices.Contains(c.args, warned) && !strings.Contains(out, "warning: no context of this file has cluster;") {
			t.Errorf("%q: %d %s", c.args, code, out)
		}
	}
	code, out, _ = towpath(t, nil, "validate", "-o", "json", bad)
	var problems []struct {
		Path, Severity, Message, Suggestion string
		Line, Column                        int
	}
	if err := json.Unmarshal([]byte(out), &problems); err != nil || code != 1 || len(problems) == 0 || problems[0].Path != bad || problems[0].Suggestion != "targets" && problems[len(problems)-1].Suggestion == "" {
		t.Errorf("json: %d %v %+v", code, err, problems)
	}
}

func TestInitWritesAFileThatIsValid(t *testing.T) {
	for name, files := range map[string]map[string]string{"helm": {"Chart.yaml": "name: x"}, "kustomize": {"kustomization.yaml": ""}, "yaml": {"web.yaml": "", "db.yml": ""}, "nothing": {}} {
		dir := write(t, files)
		if code, _, errs := towpath(t, nil, "init", dir, "-n", "shop"); code != 0 {
			t.Errorf("%s: %s", name, errs)
		}
		if code, out, _ := towpath(t, nil, "validate", filepath.Join(dir, "towpath.yaml")); code != 0 || out != "YAML is valid.\n" {
			t.Errorf("%s: %s", name, out)
		}
		if code, _, errs := towpath(t, nil, "init", dir); code != 1 || !strings.Contains(errs, "is there already") {
			t.Errorf("%s, a second time: %d %s", name, code, errs)
		}
	}
}

func TestRenderPrintsWhatWouldBeDeployed(t *testing.T) {
	dir := write(t, map[string]string{"deploy.yml": good, "m.yaml": "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n"})
	code, out, errs := towpath(t, nil, "render", "-f", filepath.Join(dir, "deploy.yml"), "--target", "t")
	if code != 0 || !strings.Contains(out, "# m.yaml:1\n") || !strings.Contains(out, "namespace: \"n\"\n") {
		t.Errorf("%d\n%s%s", code, out, errs)
	}
	if code, _, errs := towpath(t, nil, "render", "-f", filepath.Join(dir, "deploy.yml"), "--target", "u"); code != 1 || !strings.Contains(errs, `has no target "u"`) {
		t.Errorf("an unknown target: %d %s", code, errs)
	}
}

func TestATokenThatOthersMayReadIsNotUsed(t *testing.T) {
	dir := write(t, map[string]string{"token": "twp_x"})
	file := filepath.Join(dir, "token")
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"TOWPATH_ADDR": "https://127.0.0.1:1", "TOWPATH_TOKEN_FILE": file}
	if code, _, errs := towpath(t, env, "agent", "list"); code != 1 || !strings.Contains(errs, "others may read the token in "+file+"; run: chmod 600 "+file) {
		t.Errorf("%d %s", code, errs)
	}
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := towpath(t, env, "agent", "list"); code != 1 || !strings.Contains(errs, "the controller at https://127.0.0.1:1 cannot be reached") {
		t.Errorf("%d %s", code, errs)
	}
	if code, _, errs := towpath(t, nil, "agent", "list"); code != 1 || !strings.Contains(errs, "no controller: give --addr") {
		t.Errorf("without an address: %d %s", code, errs)
	}
}

func TestWhatATerminalWouldObeyIsTakenOut(t *testing.T) {
	if got := clean("a\x1b[31mb\u202ec\td\n"); got != "a[31mbc\td\n" {
		t.Errorf("got %q", got)
	}
}

func TestTheReferenceIsCurrent(t *testing.T) {
	page := (&commandLine{}).reference()
	file := "../../docs/reference/cli.md"
	if *update {
		if err := os.WriteFile(file, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != page {
		t.Errorf("%s is not what the commands say (%v); run: go test ./cmd/towpath -update", file, err)
	}
}
