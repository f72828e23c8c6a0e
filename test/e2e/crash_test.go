package e2e

import (
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
	"two targets": {next: func(version int) string { return workload("web", fmt.Sprint("example.com/web:", version)) }},
	"rolled back": {
		next: func(version int) string {
			return strings.Replace(workload("web", fmt.Sprint("example.com/web:", version)), "ports: [{port: 80}]", "ports: [{port: 99999}]", 1)
		},
		back: func(version int) string { return workload("web", fmt.Sprint("example.com/web:", version)) },
	},
}

// cutting is a scenario under way in a world of its own.
type cutting struct {
	*testing.T
	*world.World
	scenario
	version int
	missed  []string // points that were not passed when they were to be cut at
}

// The process is killed before and after every save, and before and after every write to a cluster, of a rollout to two targets and of a rollback. Each
// time another process takes over, and all ends as it does undisturbed.
func TestKilledAtAnyPointItEndsAsIfUndisturbed(t *testing.T) {
	for name, s := range scenarios {
		for shard := range shards {
			t.Run(fmt.Sprintf("%s %d of %d", name, shard+1, shards), func(t *testing.T) {
				t.Parallel()
				c := start(t, s)
				points, want := c.undisturbed()
				for i, point := range points {
					if i%shards == shard {
						c.cut(point, "", want)
					}
				}
				c.passed(len(points) / shards)
			})
		}
	}
}

// A second kill while the first is recovered from makes no difference either.
func TestKilledTwiceItEndsAsIfUndisturbed(t *testing.T) {
	pairs := 50
	if os.Getenv("TOWPATH_SOAK") != "" {
		pairs = 2000
	}
	for name, s := range scenarios {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := start(t, s)
			points, want := c.undisturbed()
			seed := rand.New(rand.NewPCG(1, uint64(len(name))))
			for range pairs / len(scenarios) {
				c.cut(points[seed.IntN(len(points))], points[seed.IntN(len(points))], want)
			}
			c.passed(pairs / len(scenarios))
		})
	}
}

// shards is how many worlds share the points of a scenario.
const shards = 2

func start(t *testing.T, s scenario) *cutting {
	c := &cutting{T: t, scenario: s}
	c.World = world.New(t, &shared, gitserver.Files{"shop/towpath.yaml": file("shop", ""), "shop/manifests/web.yaml": workload("web", "example.com/web:0")})
	expectState(t, c.Ended(c.Deployment("shop", c.Repository.Head("main")).ID), "SUCCEEDED")
	for range 5 { // until as many revisions are kept as ever will be
		c.forth(func(version int) string { return workload("web", fmt.Sprint("example.com/web:", version)) })
	}
	return c
}

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
	record := filepath.Join(c.TempDir(), "points")
	c.StopController()
	c.StartController("TOWPATH_CRASH_RECORD=" + record)
	want = c.run()
	text, err := os.ReadFile(record)
	if err != nil {
		c.Fatal(err)
	}
	for _, line := range strings.Fields(strings.ReplaceAll(string(text), " ", "\x00")) {
		point := strings.ReplaceAll(line, "\x00", " ")
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
	c.StopController()
	if !c.StartController("TOWPATH_CRASH_AT=" + point) {
		c.Fatalf("%s is passed at the start already", point)
	}
	c.version++
	commit := c.commit(c.next(c.version))
	c.TryAnnounce()
	if !c.died(commit) {
		c.missed = append(c.missed, point)
		c.StopController()
	}
	if second == "" || !c.StartController("TOWPATH_CRASH_AT="+second) || c.died(commit) {
		c.StartController()
	}
	d := c.Deployment("shop", commit)
	if got := c.end(d.ID); got != want {
		c.Errorf("killed at %s %s:\n got %s\nwant %s", point, second, got, want)
	}
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
