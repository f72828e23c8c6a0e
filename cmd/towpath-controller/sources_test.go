package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/sirupsen/logrus"
	logs "github.com/sirupsen/logrus/hooks/test"

	"towpath/api"
	hub "towpath/internal/testkit/github"
	"towpath/internal/testkit/gitserver"
	"towpath/store"
)

// watcher is a controller that follows a repository. Its clusters have no agents: what is recorded is what it means to do.
type watcher struct {
	*controller
	t          *testing.T
	repository *gitserver.Repo
}

// everywhere is what a source may touch that may touch everything.
const everywhere = "allow: [{accounts: ['*'], namespaces: ['*'], kinds: ['*']}]"

// watch follows a repository of some files, with settings for the source.
func watch(t *testing.T, files gitserver.Files, settings string) *watcher {
	t.Helper()
	repository := gitserver.NewRepo(t, t.TempDir(), "repo", files)
	w := &watcher{start(t, configure(t, sourceOf(repository, settings))), t, repository}
	w.taken(repository.Head("main"))
	return w
}

func sourceOf(repository *gitserver.Repo, settings string) string {
	return fmt.Sprintf("sources: [{name: repo, url: %s, branch: main, schedule: '@every 1h', %s}]\n", repository.Dir, settings)
}

// taken waits until a commit is taken in.
func (w *watcher) taken(commit string) {
	w.t.Helper()
	await(w.t, "commit "+commit+" to be taken in", func() bool {
		s, err := w.store.Source(w.t.Context(), "main", "repo")
		return err == nil && s.Processed == commit
	})
}

// merge makes a commit and returns once it is taken in.
func (w *watcher) merge(message string, files gitserver.Files) (commit string) {
	w.t.Helper()
	commit = w.repository.Commit(message, files)
	must(w.t, w.store.WakeSource(w.t.Context(), "repo"))
	w.taken(commit)
	return commit
}

func (w *watcher) application(name string) store.ApplicationView {
	w.t.Helper()
	all, err := w.store.Applications(w.t.Context(), store.ApplicationFilter{Tenant: "main", Name: name})
	must(w.t, err)
	if len(all) != 1 {
		w.t.Fatalf("there is no application %s", name)
	}
	return all[0]
}

// said is what history says of an application, a line each.
func (w *watcher) said(application string) string {
	w.t.Helper()
	events, err := w.store.Events(w.t.Context(), store.EventFilter{Tenant: "main", Application: application})
	must(w.t, err)
	var lines []string
	for _, e := range events {
		lines = append(lines, strings.TrimSpace(e.Kind+" "+e.What+": "+e.Why))
	}
	return strings.Join(lines, "\n")
}

// deployments is the deployments of an application, the first one first.
func (w *watcher) deployments(application string) []store.DeploymentView {
	w.t.Helper()
	all, err := w.store.Deployments(w.t.Context(), store.DeploymentFilter{Tenant: "main", Application: application})
	must(w.t, err)
	slices.Reverse(all)
	return all
}

// removes reports whether a deployment takes the objects of a target away.
func removes(d store.DeploymentView, target string) bool {
	return slices.ContainsFunc(d.Targets, func(t store.TargetView) bool { return t.Name == target && t.Removes })
}

// problems is what is wrong with the files of the source, a line each.
func (w *watcher) problems() string {
	w.t.Helper()
	files, err := w.store.Problems(w.t.Context(), "main", "repo")
	must(w.t, err)
	var lines []string
	for _, f := range files {
		for _, p := range f.Problems {
			lines = append(lines, fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Text))
		}
	}
	return strings.Join(lines, "\n")
}

// application is a deployment file and its manifest in a folder.
func application(folder, name, extra string) gitserver.Files {
	u := upload(name, "1")
	return gitserver.Files{folder + "/towpath.yaml": strings.Replace(string(u.Files["deploy.yml"]), "\nmanifests", "\n"+extra+"\nmanifests", 1),
		folder + "/m.yaml": string(u.Files["m.yaml"])}
}

// and joins files; the later ones count.
func and(all ...gitserver.Files) gitserver.Files {
	joined := gitserver.Files{}
	for _, files := range all {
		for name, text := range files {
			joined[name] = text
		}
	}
	return joined
}

// without takes the folder of an application away.
func without(folder string) gitserver.Files {
	return gitserver.Files{folder + "/towpath.yaml": gitserver.Delete, folder + "/m.yaml": gitserver.Delete}
}

const prune = "deploymentConfig: {prune: true}"

func TestAFileThatMovesTakesItsApplicationAlong(t *testing.T) {
	t.Parallel()
	for name, extra := range map[string]string{"and would orphan it": "", "and would prune it": prune} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := watch(t, application("old", "shop", extra), everywhere)
			w.merge("moved", and(without("old"), application("new", "shop", extra)))
			if app := w.application("shop"); app.Removed || app.Path != "new/towpath.yaml" || app.Lanes[0].Removed {
				t.Errorf("after the move it is owned by %+v; its lane: %+v", app.Owner, app.Lanes[0])
			}
			if all := w.deployments("shop"); len(all) != 1 {
				t.Errorf("a move alone started something:\n%s", w.said("shop"))
			}
			w.merge("changed", gitserver.Files{"new/m.yaml": string(upload("shop", "2").Files["m.yaml"])})
			if all := w.deployments("shop"); len(all) != 2 || all[1].Origin.Path != "new/towpath.yaml" {
				t.Errorf("a change after the move:\n%s", w.said("shop"))
			}
			w.merge("gone", without("new"))
			if d := w.deployments("shop"); !w.application("shop").Removed || removes(d[len(d)-1], "prod") != (extra != "") {
				t.Errorf("once it is gone:\n%s", w.said("shop"))
			}
		})
	}
}

func TestAFileThatMovesWithAMistakeKeepsItsApplication(t *testing.T) {
	t.Parallel()
	w := watch(t, application("old", "shop", prune), everywhere)
	mistaken := and(application("new", "shop", "targetz: {}"))
	w.merge("moved, with a mistake", and(without("old"), mistaken))
	if app := w.application("shop"); app.Removed || app.Lanes[0].Removed || len(w.deployments("shop")) != 1 || !strings.Contains(w.problems(), "new/towpath.yaml:3:1: unknown key targetz") {
		t.Errorf("the mistake took its lanes:\n%s\n%s", w.said("shop"), w.problems())
	}
	w.merge("gone", without("new"))
	if d := w.deployments("shop"); !w.application("shop").Removed || !removes(d[len(d)-1], "prod") {
		t.Errorf("once it is gone, what the last good file said does not count:\n%s", w.said("shop"))
	}
}

func TestAFileThatComesBackWhileItsObjectsGoIsDeployedAgain(t *testing.T) {
	t.Parallel()
	files := application("shop", "shop", prune)
	w := watch(t, files, everywhere)
	w.merge("gone", without("shop"))
	w.merge("back, as it was", files)
	if all := w.deployments("shop"); len(all) != 3 || removes(all[2], "prod") || w.application("shop").Removed {
		t.Errorf("history:\n%s", w.said("shop"))
	}
}

func TestTwoFilesThatSwapTheirApplicationsLoseNone(t *testing.T) {
	t.Parallel()
	w := watch(t, and(application("one", "shop", ""), application("two", "web", "")), everywhere)
	w.merge("swapped", and(application("two", "shop", ""), application("one", "web", "")))
	for name, path := range map[string]string{"shop": "two/towpath.yaml", "web": "one/towpath.yaml"} {
		if app := w.application(name); app.Removed || app.Path != path || len(w.deployments(name)) != 1 {
			t.Errorf("%s is owned by %+v:\n%s", name, app.Owner, w.said(name))
		}
	}
	if w.problems() != "" {
		t.Errorf("refused: %s", w.problems())
	}
}

func TestAFileThatNamesAnotherApplicationLetsItsFormerOneGo(t *testing.T) {
	t.Parallel()
	for name, extra := range map[string]string{"orphaned": "", "pruned": prune} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := watch(t, application("shop", "shop", extra), everywhere)
			w.merge("another name, with a mistake", application("shop", "store", "targetz: {}"))
			if app := w.application("shop"); app.Removed || len(w.deployments("shop")) != 1 {
				t.Errorf("a mistake in the file let its application go:\n%s", w.said("shop"))
			}
			w.merge("another name", application("shop", "store", ""))
			if d := w.deployments("shop"); !w.application("shop").Removed || len(d) != 2 || removes(d[1], "prod") != (extra != "") {
				t.Errorf("its former application:\n%s", w.said("shop"))
			}
			if orphaned := strings.Contains(w.said("shop"), "nobody owns them: its file shop/towpath.yaml names application store now, and the file did not say"); orphaned != (extra == "") {
				t.Errorf("its former application:\n%s", w.said("shop"))
			}
			if app := w.application("store"); app.Removed || app.Path != "shop/towpath.yaml" || len(w.deployments("store")) != 1 {
				t.Errorf("its new application:\n%s", w.said("store"))
			}
		})
	}
}

func TestANameThatIsLetGoIsTakenByTheFileThatWasRefusedIt(t *testing.T) {
	t.Parallel()
	w := watch(t, and(application("one", "shop", ""), application("two", "shop", "")), everywhere)
	w.shows("two/towpath.yaml:1:1: application shop belongs to one/towpath.yaml of source repo already; two/towpath.yaml must name another")
	if strings.Contains(w.problems(), "one/towpath.yaml:") {
		t.Errorf("the first file does not keep the name: %s", w.problems())
	}
	w.merge("the first one names another", application("one", "store", ""))
	for name, path := range map[string]string{"store": "one/towpath.yaml", "shop": "two/towpath.yaml"} {
		if app := w.application(name); app.Removed || app.Path != path || strings.Contains(w.said(name), "orphaned") {
			t.Errorf("%s is owned by %+v:\n%s", name, app.Owner, w.said(name))
		}
	}
	if w.problems() != "" {
		t.Errorf("refused still: %s", w.problems())
	}
}

func TestPruneCountsAsTheFileLastSaidIt(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		before, after string
		goes          bool
	}{
		"taken out in a commit that changes nothing else": {prune, "", false},
		"put in in a commit that changes nothing else":    {"", prune, true},
		"there from the first":                            {prune, prune, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := watch(t, application("shop", "shop", c.before), everywhere)
			w.merge("prune", and(application("shop", "shop", c.after), gitserver.Files{"README.md": "x"}))
			w.merge("a mistake in between says nothing", application("shop", "shop", "targetz: {}"))
			w.merge("gone", without("shop"))
			all := w.deployments("shop")
			if len(all) != 2 || removes(all[1], "prod") != c.goes || strings.Contains(w.said("shop"), "target.orphaned") == c.goes {
				t.Errorf("objects go: want %v\n%s", c.goes, w.said("shop"))
			}
		})
	}
}

func TestATargetThatLeavesTheFileGoesAsTheFileSays(t *testing.T) {
	t.Parallel()
	for name, extra := range map[string]string{"orphaned": "", "pruned": prune} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			files := application("shop", "shop", extra)
			one := files["shop/towpath.yaml"]
			files["shop/towpath.yaml"] = strings.Replace(one, "targets: {", "targets: {audit: {account: audit, namespace: ns, strategy: all}, ", 1)
			w := watch(t, files, everywhere)
			w.merge("one target fewer", gitserver.Files{"shop/towpath.yaml": one})
			all := w.deployments("shop")
			if len(all) != 2 || removes(all[1], "audit") != (extra != "") || removes(all[1], "prod") || w.application("shop").Removed {
				t.Errorf("history:\n%s", w.said("shop"))
			}
			if orphaned := strings.Contains(w.said("shop"), "target.orphaned audit: its objects stay"); orphaned != (extra == "") {
				t.Errorf("orphaned: %v\n%s", orphaned, w.said("shop"))
			}
		})
	}
}

// reload gives the source other settings, as an operator does who edits the configuration.
func (w *watcher) reload(settings string) {
	w.t.Helper()
	with := *w.config
	with.Sources = configure(w.t, sourceOf(w.repository, settings)).Sources
	must(w.t, w.Reload(&with))
}

// shows waits until something is wrong with the source's files that has these words; "": until nothing is.
func (w *watcher) shows(words string) {
	w.t.Helper()
	var said string
	defer func() {
		if w.t.Failed() {
			w.t.Logf("they show: %s", said)
		}
	}()
	await(w.t, "the source's files to show: "+words, func() bool {
		said = w.problems()
		return words == "" && said == "" || words != "" && strings.Contains(said, words)
	})
}

func TestWhatASourceMayTouchCountsAtOnceWhenItIsChanged(t *testing.T) {
	t.Parallel()
	w := watch(t, and(application("shop", "shop", prune), application("web", "web", "")), "allow: [{accounts: [staging], namespaces: ['*'], kinds: ['*']}]")
	w.shows("shop/towpath.yaml:2:27: source repo may not deploy to account prod; sources[].allow of the controller's configuration says what it may")
	w.reload(everywhere)
	w.shows("")
	first := w.deployments("shop")
	if len(first) != 1 || first[0].Trigger.Reason != "looked at anew: the settings of source repo changed, or the rules that its files are held to" {
		t.Fatalf("once it may touch the account:\n%s", w.said("shop"))
	}
	w.reload("allow: [{accounts: ['*'], namespaces: [elsewhere], kinds: ['*']}]")
	w.shows("source repo may not deploy ConfigMap ns/shop to account prod")
	w.reload("paths: ['web/*.yaml'], " + everywhere)
	await(t, "what is no longer watched to be orphaned", func() bool { return w.application("shop").Removed })
	if !strings.Contains(w.said("shop"), "target.orphaned prod: its objects stay and nobody owns them: source repo no longer watches its file shop/towpath.yaml") {
		t.Errorf("what is no longer watched:\n%s", w.said("shop"))
	}
	w.reload(everywhere)
	await(t, "what is watched again to be deployed", func() bool { return len(w.deployments("shop")) == 3 })
	w.shows("")
	if len(w.deployments("web")) != 1 {
		t.Errorf("what no setting was about moved:\n%s", w.said("web"))
	}
}

func TestSettingsThatChangedWhileItWasDownCountFromTheStart(t *testing.T) {
	t.Parallel()
	repository := gitserver.NewRepo(t, t.TempDir(), "repo", application("shop", "shop", ""))
	before := configure(t, sourceOf(repository, "tenant: main"))
	w := &watcher{start(t, before), t, repository}
	w.shows("may not deploy to account prod")
	must(t, w.Close())
	after := *before
	after.Sources = configure(t, sourceOf(repository, everywhere)).Sources
	w.controller = start(t, &after)
	w.shows("")
	if len(w.deployments("shop")) != 1 {
		t.Errorf("history:\n%s", w.said("shop"))
	}
}

func TestARoleThatIsGivenLetsInWhatAsksForIt(t *testing.T) {
	t.Parallel()
	files := application("shop", "shop", "")
	files["shop/towpath.yaml"] = strings.Replace(files["shop/towpath.yaml"], "steps: [", "steps: [{pause: {untilApproved: true, requiresRoles: [sre]}}, ", 1)
	w := watch(t, files, everywhere)
	w.shows("sre")
	with := *w.config
	with.Roles = configure(t, "roles: [{name: sre, members: [ann]}]\n").Roles
	must(t, w.Reload(&with))
	w.shows("")
}

// process is the controller as a process of its own.
type process struct {
	*exec.Cmd
	lines *bufio.Scanner
}

// says reads what the process logs until a line has some words.
func (p *process) says(t *testing.T, words string) string {
	t.Helper()
	for p.lines.Scan() {
		if strings.Contains(p.lines.Text(), words) {
			return p.lines.Text()
		}
	}
	t.Fatalf("it ended, and never said %q: %v", words, p.lines.Err())
	return ""
}

func TestASignalHasTheConfigurationReadAnew(t *testing.T) {
	t.Parallel()
	repository := gitserver.NewRepo(t, t.TempDir(), "repo", application("shop", "shop", ""))
	c := configure(t, "")
	file := filepath.Join(t.TempDir(), "config.yaml")
	write := func(more string) {
		must(t, os.WriteFile(file, fmt.Appendf(nil, "externalURL: %s\nlisten: 127.0.0.1:0\nagents: {listen: '127.0.0.1:0'}\ndatabase: %s\nkeyFile: %s\ndata: %s\nrender: {workers: 1}\n%s",
			c.ExternalURL, c.Database, c.KeyFile, c.Data, more), 0o600))
	}
	write("")
	self, err := os.Executable()
	must(t, err)
	p := &process{Cmd: exec.CommandContext(t.Context(), self, "--config", file)}
	p.Env = append(os.Environ(), asProgram+"=1")
	said, err := p.StderrPipe()
	must(t, err)
	must(t, p.Start())
	p.lines = bufio.NewScanner(said)
	p.says(t, "the controller serves")
	write(sourceOf(repository, everywhere))
	must(t, p.Process.Signal(syscall.SIGHUP))
	p.says(t, "the sources and roles of the configuration were read anew")
	p.says(t, "a commit was taken in")
	write("nonsense: true\n")
	must(t, p.Process.Signal(syscall.SIGHUP))
	if line := p.says(t, "the configuration was not taken on whole"); !strings.Contains(line, "nonsense") {
		t.Errorf("a configuration that is none: %s", line)
	}
	must(t, p.Process.Signal(syscall.SIGTERM))
	p.says(t, "the controller stops")
	_, err = io.Copy(io.Discard, said)
	must(t, errors.Join(err, p.Wait()))
}

func TestFilesThatAForcePushTookAwayGoAlsoWhenTheMirrorIsLost(t *testing.T) {
	t.Parallel()
	repository := gitserver.NewRepo(t, t.TempDir(), "repo", gitserver.Files{"README.md": "nothing yet"})
	root := repository.Head("main")
	w := &watcher{start(t, configure(t, sourceOf(repository, everywhere))), t, repository}
	w.taken(root)
	w.merge("two applications", and(application("shop", "shop", ""), application("web", "web", ""), application("old", "moved", "")))
	must(t, w.Close())
	must(t, os.RemoveAll(filepath.Join(w.config.Data, "mirrors")))
	head := repository.ForcePush("main", root, "one of them was never there", and(application("web", "web", ""), application("new", "moved", "")))
	repository.Git("reflog", "expire", "--expire=now", "--all")
	repository.Git("gc", "--quiet", "--prune=now")
	w.controller = start(t, w.config)
	w.taken(head)
	if !w.application("shop").Removed || !strings.Contains(w.said("shop"), "its file shop/towpath.yaml is gone") {
		t.Errorf("what is gone is not orphaned:\n%s", w.said("shop"))
	}
	for name, path := range map[string]string{"web": "web/towpath.yaml", "moved": "new/towpath.yaml"} {
		if app := w.application(name); app.Removed || app.Path != path || len(w.deployments(name)) != 1 {
			t.Errorf("%s is owned by %+v:\n%s", name, app.Owner, w.said(name))
		}
	}
}

func TestHistorySaysWhenASourceFailsAndWhenItIsThereAgain(t *testing.T) {
	t.Parallel()
	repository := gitserver.NewRepo(t, t.TempDir(), "repo", gitserver.Files{"README.md": "x"})
	away := repository.Dir + ".away"
	must(t, os.Rename(repository.Dir, away))
	w := &watcher{start(t, configure(t, sourceOf(repository, everywhere))), t, repository}
	await(t, "its failure", func() bool { return strings.Contains(w.said(""), "source.failing source repo cannot be fetched: ") })
	must(t, w.store.SourceSeen(t.Context(), "main", "repo", "", errors.New("another reason")))
	must(t, os.Rename(away, repository.Dir))
	must(t, w.store.WakeSource(t.Context(), "repo"))
	await(t, "its recovery", func() bool { return strings.Contains(w.said(""), "source.recovered source repo can be fetched again") })
	if said := w.said(""); strings.Count(said, "source.failing") != 1 || strings.Count(said, "source.recovered") != 1 {
		t.Errorf("history:\n%s", said)
	}
}

func TestAFileThatIsNoDeploymentFileIsPassedOverWithANote(t *testing.T) {
	t.Parallel()
	files := and(application("shop", "shop", ""), gitserver.Files{"notes/towpath.yaml": "hello: world\n", "k8s/deploy.yaml": string(upload("x", "1").Files["m.yaml"])})
	repository := gitserver.NewRepo(t, t.TempDir(), "repo", files)
	log, noted := logs.NewNullLogger()
	w := &watcher{start(t, configure(t, sourceOf(repository, everywhere)), func(m *Main) { m.log = logrus.NewEntry(log) }), t, repository}
	w.taken(repository.Head("main"))
	var passed []string
	for _, e := range noted.AllEntries() {
		if e.Message == "passed over: it has neither targets nor application, so it is no deployment file" {
			passed = append(passed, fmt.Sprint(e.Data["source"], ":", e.Data["path"]))
		}
	}
	slices.Sort(passed)
	if !slices.Equal(passed, []string{"repo:k8s/deploy.yaml", "repo:notes/towpath.yaml"}) || w.problems() != "" || len(w.deployments("shop")) != 1 {
		t.Errorf("passed over: %v; refused: %s", passed, w.problems())
	}
	w.merge("it becomes one, with a mistake", gitserver.Files{"notes/towpath.yaml": "application: notes\n"})
	w.shows("notes/towpath.yaml:")
}

func TestAFileThatReachesForAnAccountIsToldAndHurtsNobody(t *testing.T) {
	t.Parallel()
	staging := application("web", "web", "")
	staging["web/towpath.yaml"] = strings.Replace(staging["web/towpath.yaml"], "account: prod", "account: staging", 1)
	github := hub.Start(t)
	token := filepath.Join(t.TempDir(), "token")
	must(t, os.WriteFile(token, []byte("secret-token"), 0o600))
	github.Token("secret-token", "acme/repo", hub.Rights{"statuses": "write"})
	repository := gitserver.NewRepo(t, t.TempDir(), "repo", and(staging, application("shop", "shop", "")))
	commit := repository.Head("main")
	github.Repository("acme/repo", commit)
	w := &watcher{start(t, configure(t, sourceOf(repository, fmt.Sprintf("allow: [{accounts: [staging], namespaces: ['*'], kinds: ['*']}], github: {repository: acme/repo, tokenFile: %s, apiURL: %q}",
		token, github.URL)))), t, repository}
	const want = "shop/towpath.yaml:2:27: source repo may not deploy to account prod; "
	await(t, "the commit's status to say it", func() bool {
		shown := github.Shown("acme/repo", commit)["towpath/shop"]
		return shown.State == "failure" && strings.HasPrefix(shown.Description, want)
	})
	var sources struct{ Items []api.Source }
	w.call(w.token("main", "ann", api.View), http.MethodGet, "/api/v1/sources", nil).read(t, &sources)
	if p := sources.Items[0].Problems; len(p) != 1 || !strings.HasPrefix(fmt.Sprintf("%s:%d:%d: %s", p[0].File, p[0].Line, p[0].Column, p[0].Text), want) {
		t.Errorf("the API says %+v", p)
	}
	if len(w.deployments("web")) != 1 {
		t.Errorf("what may be deployed is not:\n%s", w.said("web"))
	}
}
