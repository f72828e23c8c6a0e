package kube_test

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"towpath/internal/localkube"
	"towpath/internal/testkit/kube"
)

var shared = kube.Shared{Options: kube.Options{Audit: true}}

func TestMain(m *testing.M) { kube.Main(m, &shared) }

func TestTheAuditLogNamesWhoDidWhat(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	mine, other := c.Namespace(t), c.Namespace(t)
	access := c.Account(t, mine, "agent", false, localkube.Rule{Groups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"list"}})
	client, err := dynamic.NewForConfig(&rest.Config{Host: "http://anywhere", Transport: c.TransportOf(t, access)})
	if err != nil {
		t.Fatal(err)
	}
	configMaps := client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"})
	if _, err := configMaps.Namespace(mine).List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	agent := "system:serviceaccount:" + mine + ":agent"
	if users := c.AuditUsers(t, mine); !slices.Contains(users, agent) {
		t.Errorf("%q is not among %q", agent, users)
	}
	if users := c.AuditUsers(t, other); slices.Contains(users, agent) {
		t.Errorf("%q is among %q", agent, users)
	}
}

// A process that is killed can clean up nothing itself: the cluster does, as its lifeline is cut.
func TestAClusterGoesWithATestThatIsKilled(t *testing.T) {
	if os.Getenv("TOWPATH_TEST_IS_TO_BE_KILLED") != "" {
		c := kube.Start(t, kube.Options{})
		_, _ = os.Stdout.WriteString("kubeconfig " + c.Kubeconfig + "\n")
		select {}
	}
	t.Parallel()
	test := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	test.Env = append(os.Environ(), "TOWPATH_TEST_IS_TO_BE_KILLED=yes")
	test.Stderr = t.Output()
	out, err := test.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := test.Start(); err != nil {
		t.Fatal(err)
	}
	kubeconfig := ""
	for lines := bufio.NewScanner(out); kubeconfig == "" && lines.Scan(); {
		kubeconfig, _ = strings.CutPrefix(lines.Text(), "kubeconfig ")
	}
	if err := test.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = test.Wait() // killed
	if kubeconfig == "" {
		t.Fatal("the cluster did not start")
	}
	kube.Await(t, "the cluster's files to go", func() (bool, error) {
		_, err := os.Stat(filepath.Dir(kubeconfig))
		return errors.Is(err, fs.ErrNotExist), nil
	})
}

func TestAClusterThatIsNotBuiltFailsWithWhatToDo(t *testing.T) {
	t.Parallel()
	_, err := localkube.Start(t.Context(), localkube.Options{Programs: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "make localcluster") {
		t.Errorf("%v", err)
	}
}
