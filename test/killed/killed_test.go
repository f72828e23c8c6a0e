// Package killed kills the controller wherever it can be killed: before and after each save, and before and after each write to a cluster.
package killed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"towpath/internal/testkit/github"
	"towpath/internal/testkit/gitserver"
	"towpath/internal/testkit/routers"
	"towpath/internal/testkit/world"
)

// cutting is a scenario under way in a world of its own.
type cutting struct {
	*testing.T
	*world.World
	scenario
	hub     *github.GitHub
	jobs    *jobs
	oracle  *routers.Oracle // of prod, where a router divides traffic
	world   *asked          // what the manifests ask of the world; nil: nothing
	control string          // file that says where the controller is to die
	version int
	orders  int
	missed  []string // points that were not passed when they were to be cut at
	again   int      // second kills that were to be
	spared  int      // and those of them whose point was passed before
}

var shared world.Shared

var install = sync.OnceValue(func() error { return routers.Install(context.Background(), shared.Clusters["prod"].Kubeconfig) })

// The programs are built without the race detector: other tests have it, and here the process is started hundreds of times.
func TestMain(m *testing.M) {
	world.Main(m, &shared, world.Build{Tags: "crashpoints"}, "staging", "prod")
}

// The process is killed before and after every save, and before and after every write to a cluster, of a rollout to two targets and of a rollback, and at
// points by seed of all the others; and then a second time, while another process recovers. Each time another process takes over, and all ends as it does
// undisturbed. In the model (reconcile/proof) each of them is cut at every point.
func TestKilledAtAnyPointItEndsAsIfUndisturbed(t *testing.T) {
	for _, name := range longestFirst() {
		s := scenarios[name]
		for shard := range s.shards() {
			t.Run(fmt.Sprintf("%s %d of %d", name, shard+1, s.shards()), func(t *testing.T) {
				t.Parallel()
				c := start(t, s)
				points, want := c.undisturbed()
				cuts := c.cuts(points)
				made := 0
				for i := shard; i < len(cuts); i += s.shards() {
					c.cut(cuts[i][0], cuts[i][1], want)
					made++
				}
				c.passed(made)
				if s.routed {
					c.Logf("%d writes of routers", c.oracle.Judge(t))
				}
				if s.asks {
					c.Logf("%d versions of what was asked for", c.world.judge(t))
				}
			})
		}
	}
}

// longestFirst is the names of all scenarios, so that none that takes long begins when the others are over: those first that are cut at each point, then those
// that are cut at the most.
func longestFirst() []string {
	return slices.SortedFunc(maps.Keys(scenarios), func(a, b string) int {
		return cmp.Or(cmp.Compare(scenarios[b].shards(), scenarios[a].shards()), cmp.Compare(scenarios[b].sample, scenarios[a].sample), cmp.Compare(a, b))
	})
}

// pairs is how many pairs of points are cut at in all.
const pairs = 50

// shards is how many worlds share the points of a scenario.
func (s scenario) shards() int {
	if s.sample == 0 {
		return 3
	}
	return 1
}

// cuts at single points, and at pairs of them: those of a seed, or all of them in the long form.
func (c *cutting) cuts(points []string) (cuts [][2]string) {
	var twice [][2]string
	for _, first := range points {
		cuts = append(cuts, [2]string{first, ""})
		for _, second := range points {
			twice = append(twice, [2]string{first, second})
		}
	}
	if os.Getenv("TOWPATH_SOAK") == "" {
		cuts, twice = some(cuts, c.sample), some(twice, (pairs+len(scenarios)-1)/len(scenarios))
	}
	return append(cuts, twice...)
}

// some of all by seed; all of them when count is 0.
func some(all [][2]string, count int) [][2]string {
	if count == 0 || count >= len(all) {
		return all
	}
	rand.New(rand.NewPCG(1, uint64(len(all)))).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:count]
}

func start(t *testing.T, s scenario) *cutting {
	if s.routed {
		if err := install(); err != nil {
			t.Fatal(err)
		}
	}
	runs := version
	if s.runs != nil {
		runs = s.runs
	}
	c := &cutting{T: t, scenario: s, hub: github.Start(t), jobs: startJobs(t), control: filepath.Join(t.TempDir(), "control")}
	c.hub.Limit(github.Limits{Requests: 1 << 30, CreationsAMinute: 1 << 30, CreationsAnHour: 1 << 30})
	settings := fmt.Sprintf("egress: {allowHosts: [%[1]q], allowPrivate: [%[1]q]}\nmetricProviders: [{name: outside, type: http, url: %[2]q, http: {value: $.value}}]\n", c.jobs.Host, c.jobs.URL+"/metric?due={{query}}")
	if s.asks {
		c.world = ask(t)
		settings += c.world.settings
	}
	files := c.files(runs, 0)
	files["shop/towpath.yaml"] = strings.ReplaceAll(s.file, "JOB", c.jobs.URL)
	c.World = world.New(t, &shared, files, world.OnGitHub(c.hub), world.Environment("TOWPATH_CRASH_CONTROL="+c.control), world.Configuration(settings))
	c.jobs.callBack(c.World)
	if d := c.Ended(c.Deployment("shop", c.Repository.Head("main")).ID); d.State != "SUCCEEDED" {
		t.Fatalf("the first deployment is %s: %+v", d.State, d.Targets)
	}
	for range 5 { // until as many revisions are kept as ever will be
		c.forth(runs)
	}
	if s.routed {
		c.oracle = routers.Watch(t, shared.Clusters["prod"].Kubeconfig, c.Namespace)
	}
	if s.asks {
		c.watch()
	}
	return c
}

// order tells the controller, or the one that starts next, what to do at its points.
func (c *cutting) order(what string) {
	c.Helper()
	c.orders++
	next := c.control + ".next"
	if err := errors.Join(os.WriteFile(next, fmt.Appendf(nil, "%s\n%d", what, c.orders), 0o600), os.Rename(next, c.control)); err != nil {
		c.Fatal(err)
	}
}

func (c *cutting) orderNothing() { c.order("nothing") }

// forth deploys the next version, with what people do on the way, and waits for its end.
func (c *cutting) forth(manifests func(int) string) *course {
	c.Helper()
	run := c.begin(manifests)
	c.Announce()
	c.Await("the end of what was begun", func() (bool, error) { return c.goesOn(run), nil })
	return run
}

// commit puts the next version into the repository; a process that dies may miss the announcement, and finds it at its start.
func (c *cutting) commit(manifests func(int) string) string {
	c.Helper()
	c.version++
	files := c.files(manifests, c.version)
	files["shop/manifests/web.yaml"] = strings.ReplaceAll(files["shop/manifests/web.yaml"], "NAMESPACE", c.Namespace)
	commit := c.Repository.Commit(fmt.Sprint("version ", c.version), files)
	c.hub.Repository(world.GitHubRepository, commit)
	return commit
}

// files is what a commit has of a version.
func (c *cutting) files(manifests func(int) string, version int) gitserver.Files {
	c.Helper()
	files := gitserver.Files{"shop/manifests/web.yaml": manifests(version)}
	if c.asks {
		files["shop/manifests/secret.yaml"] = c.world.secret(c.T, version)
	}
	return files
}

var occurrence = regexp.MustCompile(`#\d+$`)

// undisturbed runs the scenario with nothing cut: it returns the points that it passes, and how it ends.
func (c *cutting) undisturbed() (points []string, want string) {
	c.Helper()
	c.order("record")
	want = c.end(c.forth(c.next))
	c.orderNothing()
	text, err := os.ReadFile(c.control + ".points")
	if err != nil {
		c.Fatal(err)
	}
	for _, point := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		if steady(occurrence.ReplaceAllString(point, "")) && !slices.Contains(points, point) {
			points = append(points, point)
		}
	}
	if len(points) < 20 {
		c.Fatalf("only %d points were recorded: %v", len(points), points)
	}
	c.Logf("%d points", len(points))
	return points, want
}

// steady reports whether a point is passed equally often each time: claims, rests and wakes of a lane are as many as time makes of them.
func steady(name string) bool {
	for _, often := range []string{"lane.claim", "lane.rest", "lane.wake", "lane.extend", "lane.recover", "source.", "outbox", "keys", "migrate", "token", "issuer", "agent"} {
		if strings.Contains(name, " "+often) {
			return false
		}
	}
	return true
}

// cut runs the scenario again with the process killed at a point, and, when given, once more at a second while another recovers.
func (c *cutting) cut(point, second, want string) {
	c.Helper()
	if c.back != nil {
		c.forth(c.back)
	}
	c.order("kill " + point)
	run := c.begin(c.next)
	c.TryAnnounce()
	if c.died(run) {
		c.recover(run, second)
	} else {
		c.missed = append(c.missed, point)
		c.relieve()
	}
	c.orderNothing()
	c.Await("the end after a cut at "+point+" and "+second, func() (bool, error) { return c.goesOn(run), nil })
	if got := c.end(run); got != want {
		c.Errorf("killed at %s, then %s:\n got %s\nwant %s", point, second, got, want)
	}
}

// recover starts another process, which is killed at a second point when one is given.
func (c *cutting) recover(run *course, second string) {
	c.Helper()
	c.orderNothing()
	if second != "" {
		c.order("kill " + second)
		c.again++
		if c.StartController() && !c.died(run) {
			c.spared++
			c.relieve()
			return
		}
		c.orderNothing()
	}
	c.StartController()
}

// relieve puts another process in the place of one that all has ended under, and that may still come to the point that it is to die at.
func (c *cutting) relieve() {
	c.Helper()
	c.orderNothing()
	c.KillController()
	c.StartController()
}

// died waits until the process has died, or all has ended without: how often a target is saved while its pods start is a matter
// of time, so the last of these points are not always passed.
func (c *cutting) died(run *course) (died bool) {
	c.Helper()
	c.Await("the controller's death, or the deployment's end", func() (bool, error) {
		select {
		case <-c.ControllerGone():
			died = true
			return true, nil
		default:
		}
		return c.goesOn(run), nil
	})
	return died
}

// passed holds that nearly all cuts were made.
func (c *cutting) passed(cuts int) {
	c.Helper()
	if len(c.missed) > cuts/5 {
		c.Errorf("%d of %d points were not passed: %v", len(c.missed), cuts, c.missed)
	}
	c.Logf("%d cuts, %d of them not made (%s); %d second ones, %d of them at points that were passed before", cuts, len(c.missed), strings.Join(c.missed, ", "), c.again, c.spared)
}

var (
	numbers  = regexp.MustCompile(`#\d+`)
	commits  = regexp.MustCompile(`commit [0-9a-f]{7}`)
	untils   = regexp.MustCompile(`until \d{4}-\d\d-\d\d \d\d:\d\d`)
	versions = regexp.MustCompile(`version \d+`)
	images   = regexp.MustCompile(`example\.com/web:\d+`)
	selected = regexp.MustCompile(`pod-template-hash:[0-9a-z]+`)
	hashes   = regexp.MustCompile(`-[0-9a-v]{10}\b`)
)

// end says all that must be the same each time: states, events, and what lies in both clusters.
func (c *cutting) end(run *course) string {
	c.Helper()
	var out strings.Builder
	var told []string
	for _, commit := range run.commits {
		d := c.Ended(c.Deployment("shop", commit).ID)
		fmt.Fprintln(&out, d.State)
		for _, t := range d.Targets {
			fmt.Fprintln(&out, " ", t.Name, t.State, t.Why)
		}
		for _, e := range c.EventsOf(d.ID) {
			fmt.Fprintln(&out, " ", e)
		}
		told = append(told, c.told(commit, 1+len(d.Targets))...)
		if c.measures {
			fmt.Fprintln(&out, "  measurements:", c.measurements(d.ID))
		}
		if c.job {
			fmt.Fprintln(&out, "  keys that the job was called with:", c.jobs.keysOf(d.ID))
		}
		if c.asks {
			fmt.Fprintln(&out, "  links:", c.links(d.ID))
		}
	}
	for _, cluster := range []string{"staging", "prod"} {
		for _, line := range c.objects(cluster) {
			fmt.Fprintln(&out, " ", cluster, line)
		}
	}
	fmt.Fprintln(&out, " ", strings.Join(told, "\n  "))
	text := out.String()
	for _, r := range []*regexp.Regexp{numbers, commits, versions, untils} {
		text = r.ReplaceAllString(text, "…")
	}
	return strings.ReplaceAll(text, c.Namespace, "NAMESPACE")
}

// objects is what lies in a cluster: of revisions how many pods of which image they want, of settings what they say, of Services what they select. Versions
// are told by their age.
func (c *cutting) objects(cluster string) (lines []string) {
	c.Helper()
	resources := []string{"v1 configmaps", "v1 services", "apps/v1 deployments", "apps/v1 replicasets", "apps/v1 statefulsets", "apps/v1 daemonsets"}
	if c.routed && cluster == "prod" {
		resources = append(resources, "split.smi-spec.io/v1alpha4 trafficsplits")
	}
	for _, resource := range resources {
		for name, o := range c.Objects(cluster, resource) {
			if name == "kube-root-ca.crt" {
				continue
			}
			line := fmt.Sprintf("%s %s", resource, hashes.ReplaceAllString(name, "-HASH"))
			for _, path := range [][]string{{"data"}, {"spec", "selector"}, {"spec", "replicas"}, {"spec", "updateStrategy"}} {
				if value, found, _ := unstructured.NestedFieldNoCopy(o.Object, path...); found {
					line += fmt.Sprintf(" %s=%v", path[len(path)-1], value)
				}
			}
			containers, _, _ := unstructured.NestedSlice(o.Object, "spec", "template", "spec", "containers")
			for _, container := range containers {
				line += fmt.Sprintf(" image=%v", container.(map[string]any)["image"])
			}
			lines = append(lines, selected.ReplaceAllString(line, "pod-template-hash:HASH"))
		}
	}
	if c.asks && cluster == "prod" {
		lines = append(lines, c.asked()...)
	}
	ages := map[string]string{}
	for i, image := range newestFirst(images.FindAllString(strings.Join(lines, "\n"), -1)) {
		ages[image] = fmt.Sprintf("the newest version but %d", i)
	}
	for i, line := range lines {
		lines[i] = images.ReplaceAllStringFunc(line, func(image string) string { return ages[image] })
	}
	slices.Sort(lines)
	return lines
}

func newestFirst(all []string) []string {
	number := func(image string) int {
		n, _ := strconv.Atoi(image[strings.LastIndexByte(image, ':')+1:]) // digits, as the expression has it
		return n
	}
	slices.SortFunc(all, func(a, b string) int { return number(b) - number(a) })
	return slices.Compact(all)
}

// told is what GitHub shows of a commit once so many statuses are there and none of them is pending.
func (c *cutting) told(commit string, count int) (shown []string) {
	c.Helper()
	c.Await("the statuses of commit "+commit, func() (bool, error) {
		shown = nil
		for context, s := range c.hub.Shown(world.GitHubRepository, commit) {
			shown = append(shown, fmt.Sprintf("%s %s: %s", context, s.State, s.Description))
			if s.State == "pending" {
				return false, nil
			}
		}
		slices.Sort(shown)
		return len(shown) >= count, nil
	})
	return shown
}
