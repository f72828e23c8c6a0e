// Package demo runs the demo as people do, and as a CI job does, and sees that it says what it does and leaves nothing behind.
package demo

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"

	"towpath/internal/testkit/pages"
	"towpath/internal/testkit/world"
)

var shared world.Shared

// The two clusters stand for those that a user has; the demo's own it starts itself.
func TestMain(m *testing.M) {
	if err := os.Setenv("TMPDIR", "/var/tmp"); err != nil { // pods, which run the agent's program, have a /tmp of their own
		panic(err)
	}
	world.Main(m, &shared, world.Build{}, "staging", "prod")
}

var build sync.Once

// demo is one directory in which demos run.
type demo struct {
	t       *testing.T
	dir     string
	program string
	flags   []string
	env     []string
}

func newDemo(t *testing.T, kubeconfigs string, flags ...string) *demo {
	t.Helper()
	root := pages.Root(t)
	program := filepath.Join(shared.Programs, "towpath-demo")
	build.Do(func() {
		command := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./cmd/towpath-demo")
		command.Dir = root
		if out, err := command.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	})
	programs := os.Getenv("TOWPATH_LOCALCLUSTER")
	if programs == "" {
		programs = filepath.Join(root, ".build", "localcluster")
	}
	d := &demo{t: t, dir: t.TempDir(), program: program}
	d.flags = append([]string{"--dir", d.dir, "--programs", shared.Programs, "--localcluster", programs, "--examples", filepath.Join(root, "examples"),
		"--kubeconfigs", kubeconfigs}, flags...)
	t.Cleanup(func() { d.command("stop").Run() })
	return d
}

// clusters are the two kubeconfig files of the user's clusters.
func clusters() string {
	return shared.Clusters["staging"].Kubeconfig + "," + shared.Clusters["prod"].Kubeconfig
}

func (d *demo) command(args ...string) *exec.Cmd {
	command := exec.Command(d.program, append(slices.Clone(d.flags), args...)...)
	command.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "CI=") || strings.HasPrefix(v, "KUBECONFIG") || strings.HasPrefix(v, "GIT")
	}), d.env...)
	return command
}

// run runs a demo to its end, with CI=true if env says so.
func (d *demo) run(args ...string) (code int, out string) {
	d.t.Helper()
	command := d.command(args...)
	var all bytes.Buffer
	command.Stdout, command.Stderr = &all, &all
	err := command.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		d.t.Fatal(err)
	}
	d.t.Logf("exit %d\n%s", command.ProcessState.ExitCode(), &all)
	return command.ProcessState.ExitCode(), all.String()
}

func (d *demo) succeeds(says ...string) {
	d.t.Helper()
	code, out := d.run()
	if code != 0 {
		d.t.Fatalf("the demo exits with %d\n%s", code, d.logs())
	}
	contains(d.t, out, says...)
}

func (d *demo) fails(says ...string) {
	d.t.Helper()
	code, out := d.run()
	if code != 1 {
		d.t.Errorf("the demo exits with %d, want 1", code)
	}
	contains(d.t, out, says...)
	d.nothingLeft()
}

func (d *demo) logs() string {
	files, _ := filepath.Glob(filepath.Join(d.dir, "*", "*.log"))
	var all strings.Builder
	for _, file := range files {
		text, _ := os.ReadFile(file)
		all.WriteString(file + ":\n" + string(text))
	}
	return all.String()
}

func contains(t *testing.T, out string, says ...string) {
	t.Helper()
	for _, want := range says {
		if !strings.Contains(out, want) {
			t.Errorf("it does not say %q:\n%s", want, out)
		}
	}
}

// processes are those that have the demo's directory among their arguments.
func (d *demo) processes() (all []string) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		if text, err := os.ReadFile(file); err == nil && bytes.Contains(text, []byte(d.dir)) {
			all = append(all, strings.ReplaceAll(string(text), "\x00", " "))
		}
	}
	return all
}

// nothingLeft holds that all processes end: the last of them gives its lock back, which is what a stop waits for, a moment before it is gone.
func (d *demo) nothingLeft() {
	d.t.Helper()
	left := d.processes()
	for deadline := time.Now().Add(20 * time.Second); len(left) > 0 && time.Now().Before(deadline); left = d.processes() {
		time.Sleep(20 * time.Millisecond)
	}
	if len(left) > 0 {
		d.t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
}

// one is the directory of the one demo that ran in d.dir.
func (d *demo) one() string {
	d.t.Helper()
	found, err := filepath.Glob(filepath.Join(d.dir, "*", "lock"))
	if err != nil || len(found) != 1 {
		d.t.Fatalf("demos in %s: %v (%v)", d.dir, found, err)
	}
	return filepath.Dir(found[0])
}

func (d *demo) git(args ...string) {
	d.t.Helper()
	command := exec.CommandContext(d.t.Context(), "git", append([]string{"-C", filepath.Join(d.one(), "work")}, args...)...)
	if out, err := command.CombinedOutput(); err != nil {
		d.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
}

// Each folder of examples is an application of the demo's repository: this is where all of them are deployed to real clusters.
func TestInCIItRunsToTheEndAndASecondOneFindsWhatTheFirstLeft(t *testing.T) {
	t.Parallel()
	d := newDemo(t, "")
	d.env = []string{"CI=true"}
	d.succeeds("It needs about", "cluster staging is ready", "cluster prod is ready", "a Git repository is filled from the examples", "pods of Towpath run, those of the examples are simulated", "agent prod dials out of a pod in its cluster", "in a pod of the cluster staging, installed by its chart", "The pods of the examples are simulated; those of Towpath, in the namespaces towpath and towpath-agent, run.",
		"clock    SUCCEEDED on staging, prod", "greeter  SUCCEEDED on staging, prod", "hello    SUCCEEDED on staging, prod", "settings SUCCEEDED on staging, prod",
		"shop     SUCCEEDED on staging, prod", "checkout SUCCEEDED on staging, prod",
		"web      SUCCEEDED on staging, prod-eu, prod-us, prod-rest", "version 1.0.1", "What runs now:", "ready pods: 3", "See it roll out:", "make demo-stop", "stopped;")
	d.nothingLeft()
	code, out := d.run()
	if code != 0 || !strings.Contains(out, "version 1.0.2") || strings.Contains(out, "is filled from the examples") {
		t.Errorf("the second demo, exit %d, did not find what the first one left:\n%s", code, out)
	}
	d.nothingLeft()
}

func TestOnClustersOfTheUser(t *testing.T) {
	d := newDemo(t, clusters())
	d.succeeds("cluster prod is yours", "a ServiceAccount that may write in them and nowhere else", "version 1.0.1", "Clean up prod:")
	for name, c := range shared.Clusters {
		if n := replicaSets(t, c.Kubeconfig); n == 0 {
			t.Errorf("nothing runs on %s", name)
		}
	}

	t.Run("goes on in the background, and another round finds it there", func(t *testing.T) {
		d.t = t
		if len(d.processes()) == 0 {
			t.Error("nothing runs")
		}
		d.succeeds("The demo of before still runs.", "version 1.0.2")
		if code, out := d.run("stop"); code != 0 || !strings.Contains(out, "stopped;") {
			t.Errorf("stop: %d %s", code, out)
		}
		d.nothingLeft()
		if code, out := d.run("stop"); code != 0 || out != "no demo runs\n" {
			t.Errorf("a second stop: %d %s", code, out)
		}
	})

	t.Run("a port that is taken is named, with what to do", func(t *testing.T) {
		d.t = t
		text, err := os.ReadFile(filepath.Join(d.one(), "controller", "addresses"))
		if err != nil {
			t.Fatal(err)
		}
		address := strings.Fields(string(text))[1]
		listener, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		d.fails(address+", the demo's address, is taken by another program", "begin afresh with: rm -rf")
	})

	t.Run("a file that is broken is named, with what to do", func(t *testing.T) {
		d.t, d.env = t, []string{"CI=true"}
		defer func() { d.env = nil }()
		if err := os.MkdirAll(filepath.Join(d.one(), "work", "broken"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d.one(), "work", "broken", "towpath.yaml"), []byte("application: broken\ntargets: {prod: {acount: prod}}\nmanifests: [{path: x}]\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		d.git("add", "broken")
		d.git("commit", "-qm", "broken")
		d.git("push", "-q", "origin", "HEAD:main")
		d.fails("not everything succeeded", "broken/towpath.yaml:2:", "unknown key acount", "mend the files in")
		d.git("rm", "-qrf", "broken")
		d.git("commit", "-qm", "mended")
		d.git("push", "-q", "origin", "HEAD:main")
	})

	for _, moment := range []string{"Starting", "is yours", "the controller serves", "agent prod dials out", "is merged to main", "RUNNING"} {
		t.Run("Ctrl-C after "+moment+" leaves nothing behind", func(t *testing.T) {
			d.t = t
			d.interrupt(moment)
		})
	}

	t.Run("a background process that is killed takes all with it", func(t *testing.T) {
		d.t = t
		d.succeeds()
		text, err := os.ReadFile(filepath.Join(d.one(), "lock"))
		if err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(t.Context(), "kill", "-9", string(text)).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for len(d.processes()) > 0 {
			select {
			case <-ctx.Done():
				d.nothingLeft()
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
}

func TestCtrlCWhileClustersStartLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	newDemo(t, "").interrupt("Starting")
}

func TestWhatIsMissingIsSaidAtOnce(t *testing.T) {
	t.Parallel()
	newDemo(t, "", "--localcluster", t.TempDir()).fails("the local cluster is not built", "build it with: make localcluster")
	newDemo(t, "one").fails("KUBECONFIGS names 1 files; the demo wants two")
	newDemo(t, "/nowhere/a,/nowhere/b").fails("KUBECONFIGS: ", "/nowhere/a", "no such file")
}

// interrupt starts a demo and ends it as Ctrl-C does, once it has said something.
func (d *demo) interrupt(said string) {
	d.t.Helper()
	command := d.command()
	read, write, err := os.Pipe()
	if err != nil {
		d.t.Fatal(err)
	}
	command.Stdout, command.Stderr = write, write
	if err := command.Start(); err != nil {
		d.t.Fatal(err)
	}
	write.Close()
	var all bytes.Buffer
	for sent, buffer := false, make([]byte, 4096); ; {
		n, err := read.Read(buffer)
		all.Write(buffer[:n])
		if !sent && strings.Contains(all.String(), said) {
			sent = true
			command.Process.Signal(syscall.SIGINT)
		}
		if err != nil {
			break
		}
	}
	command.Wait()
	if code := command.ProcessState.ExitCode(); code != 130 {
		d.t.Errorf("it exits with %d, want 130, as shells say it:\n%s", code, &all)
	}
	d.nothingLeft()
}

// replicaSets counts those in the demo's namespace.
func replicaSets(t *testing.T, kubeconfig string) int {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	list, err := client.Resource(schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "replicasets"}).Namespace("towpath-demo").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return len(list.Items)
}
