// Package killed kills the controller wherever it can be killed: before and after each save, and before and after each write to a cluster.
package killed

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"towpath/internal/testkit/gitserver"
	"towpath/internal/testkit/world"
)

// scenario is a deployment that is cut at each of its points in turn.
type scenario struct {
	next func(version int) string // manifests of a version
	back func(version int) string // manifests that bring the world back to where the next cut starts; nil: the next version does
}

var scenarios = map[string]scenario{
	"two targets": {next: func(version int) string { return world.Workload("web", fmt.Sprint("example.com/web:", version)) }},
	"rolled back": {
		next: func(version int) string {
			return strings.Replace(world.Workload("web", fmt.Sprint("example.com/web:", version)), "ports: [{port: 80}]", "ports: [{port: 99999}]", 1)
		},
		back: func(version int) string { return world.Workload("web", fmt.Sprint("example.com/web:", version)) },
	},
}

// cutting is a scenario under way in a world of its own.
type cutting struct {
	*testing.T
	*world.World
	scenario
	control string // file that says where the controller is to die
	version int
	orders  int
	missed  []string // points that were not passed when they were to be cut at
}

var shared world.Shared

// The programs are built without the race detector: other tests have it, and here the process is started hundreds of times.
func TestMain(m *testing.M) {
	world.Main(m, &shared, world.Build{Tags: "crashpoints"}, "staging", "prod")
}

// The process is killed before and after every save, and before and after every write to a cluster, of a rollout to two targets and of a rollback; and
// then a second time, while another process recovers. Each time another process takes over, and all ends as it does undisturbed.
func TestKilledAtAnyPointItEndsAsIfUndisturbed(t *testing.T) {
	for name, s := range scenarios {
		for shard := range shards {
			t.Run(fmt.Sprintf("%s %d of %d", name, shard+1, shards), func(t *testing.T) {
				t.Parallel()
				c := start(t, s)
				points, want := c.undisturbed()
				cuts := 0
				for i, point := range points {
					if i%shards == shard {
						c.cut(point, "", want)
						cuts++
					}
				}
				for _, pair := range c.pairs(points, shard) {
					c.cut(pair[0], pair[1], want)
					cuts++
				}
				c.passed(cuts)
			})
		}
	}
}

// shards is how many worlds share the points of a scenario, and pairs how many pairs of points are cut at in all.
const (
	shards = 3
	pairs  = 50
)

// pairs of points that this shard cuts at: some by seed, or all of them in the long form.
func (c *cutting) pairs(points []string, shard int) [][2]string {
	var all [][2]string
	for _, first := range points {
		for _, second := range points {
			all = append(all, [2]string{first, second})
		}
	}
	rand.New(rand.NewPCG(1, uint64(len(points)))).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	if os.Getenv("TOWPATH_SOAK") == "" {
		all = all[:pairs/len(scenarios)]
	}
	var ours [][2]string
	for i, pair := range all {
		if i%shards == shard {
			ours = append(ours, pair)
		}
	}
	return ours
}

func start(t *testing.T, s scenario) *cutting {
	c := &cutting{T: t, scenario: s, control: filepath.Join(t.TempDir(), "control")}
	c.World = world.New(t, &shared, gitserver.Files{"shop/towpath.yaml": world.TwoTargets("shop", ""), "shop/manifests/web.yaml": world.Workload("web", "example.com/web:0")},
		world.Environment("TOWPATH_CRASH_CONTROL="+c.control))
	if d := c.Ended(c.Deployment("shop", c.Repository.Head("main")).ID); d.State != "SUCCEEDED" {
		t.Fatalf("the first deployment is %s: %+v", d.State, d.Targets)
	}
	for range 5 { // until as many revisions are kept as ever will be
		c.forth(func(version int) string { return world.Workload("web", fmt.Sprint("example.com/web:", version)) })
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

// forth deploys the next version and waits for its end.
func (c *cutting) forth(manifests func(int) string) {
	c.Helper()
	c.version++
	commit := c.commit(manifests(c.version))
	c.Announce()
	c.Ended(c.Deployment("shop", commit).ID)
}

// commit puts a version into the repository; a process that dies may miss the announcement, and finds it at its start.
func (c *cutting) commit(manifests string) string {
	c.Helper()
	return c.Repository.Commit(fmt.Sprint("version ", c.version), gitserver.Files{"shop/manifests/web.yaml": strings.ReplaceAll(manifests, "NAMESPACE", c.Namespace)})
}

var occurrence = regexp.MustCompile(`#\d+$`)

// undisturbed runs the scenario with nothing cut: it returns the points that it passes, and how it ends.
func (c *cutting) undisturbed() (points []string, want string) {
	c.Helper()
	c.order("record")
	want = c.run()
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

// run deploys the next version of the scenario and returns how it ended.
func (c *cutting) run() string {
	c.Helper()
	c.version++
	commit := c.commit(c.next(c.version))
	c.Announce()
	d := c.Deployment("shop", commit)
	return c.end(d.ID)
}

// cut runs the scenario again with the process killed at a point, and, when given, once more at a second while another recovers.
func (c *cutting) cut(point, second, want string) {
	c.Helper()
	if c.back != nil {
		c.forth(c.back)
	}
	c.order("kill " + point)
	c.version++
	commit := c.commit(c.next(c.version))
	c.TryAnnounce()
	if c.died(commit) {
		c.recover(commit, second)
	} else {
		c.missed = append(c.missed, point)
	}
	c.orderNothing()
	d := c.Deployment("shop", commit)
	if got := c.end(d.ID); got != want {
		c.Errorf("killed at %s, then %s:\n got %s\nwant %s", point, second, got, want)
	}
}

// recover starts another process, which is killed at a second point when one is given.
func (c *cutting) recover(commit, second string) {
	c.Helper()
	c.orderNothing()
	if second != "" {
		c.order("kill " + second)
		if c.StartController() && !c.died(commit) {
			return
		}
		c.orderNothing()
	}
	c.StartController()
}

// died waits until the process has died, or the deployment of a commit has ended without: how often a target is saved while its pods start is a matter
// of time, so the last of these points are not always passed.
func (c *cutting) died(commit string) (died bool) {
	c.Helper()
	c.Await("the controller's death, or the deployment's end", func() (bool, error) {
		select {
		case <-c.ControllerGone():
			died = true
		default:
		}
		d, found := c.Find("shop", commit)
		return died || found && d.Ended != nil, nil
	})
	return died
}

// passed holds that nearly all cuts were made.
func (c *cutting) passed(cuts int) {
	c.Helper()
	if len(c.missed) > cuts/5 {
		c.Errorf("%d of %d points were not passed: %v", len(c.missed), cuts, c.missed)
	}
}

var (
	numbers  = regexp.MustCompile(`#\d+`)
	commits  = regexp.MustCompile(`commit [0-9a-f]{7}`)
	versions = regexp.MustCompile(`version \d+`)
	hashes   = regexp.MustCompile(`-[0-9a-v]{10}\b`)
)

// end waits for the end of a deployment and says all that must be the same each time: states, events, and what lies in both clusters.
func (c *cutting) end(id string) string {
	c.Helper()
	d := c.Ended(id)
	var out strings.Builder
	fmt.Fprintln(&out, d.State)
	for _, t := range d.Targets {
		fmt.Fprintln(&out, " ", t.Name, t.State, t.Why)
	}
	for _, e := range c.EventsOf(id) {
		fmt.Fprintln(&out, " ", e)
	}
	for _, cluster := range []string{"staging", "prod"} {
		for _, resource := range []string{"v1 configmaps", "v1 services", "apps/v1 replicasets"} {
			var lines []string
			for name, o := range c.Objects(cluster, resource) {
				spec, _ := o.Object["spec"].(map[string]any)
				lines = append(lines, fmt.Sprintf("%s %v", hashes.ReplaceAllString(name, "-HASH"), spec["replicas"]))
			}
			slices.Sort(lines)
			fmt.Fprintln(&out, " ", cluster, resource, lines)
		}
	}
	text := out.String()
	for _, r := range []*regexp.Regexp{numbers, commits, versions} {
		text = r.ReplaceAllString(text, "…")
	}
	return strings.ReplaceAll(text, c.Namespace, "NAMESPACE")
}
