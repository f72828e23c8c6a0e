package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"

	"towpath/api"
	"towpath/api/client"
)

// run is what people see: a change is merged, and rolls out.
func (d *demo) run(ctx context.Context) (err error) {
	if _, err := exec.LookPath("git"); err != nil {
		return errors.New("git is needed; install it and run make demo again")
	}
	r, err := d.find()
	if err != nil {
		if r, err = d.start(ctx); err != nil {
			return err
		}
	} else {
		fmt.Println("the demo of before still runs")
	}
	if os.Getenv("CI") == "true" {
		defer func() { err = errors.Join(err, d.stop()) }()
	}
	c, err := r.client()
	if err != nil {
		return err
	}
	if err := d.settled(ctx, c); err != nil {
		return err
	}
	version, err := d.merge(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("\nmerged to main: hello %s\n\n", version)
	if err := announce(ctx, c, r); err != nil {
		return err
	}
	if err := d.watch(ctx, c); err != nil {
		return err
	}
	return d.tell(ctx, r)
}

// settled waits until what is in the repository from before is out.
func (d *demo) settled(ctx context.Context, c *client.Client) error {
	return poll(ctx, func() (bool, error) {
		var sources struct{ Items []api.Source }
		if err := c.Call(ctx, http.MethodGet, "/sources", nil, &sources); err != nil {
			return false, err
		}
		if len(sources.Items) == 0 || sources.Items[0].Processed == "" {
			return false, nil
		}
		var deployments struct{ Items []api.Deployment }
		if err := c.Call(ctx, http.MethodGet, "/deployments?limit=20", nil, &deployments); err != nil {
			return false, err
		}
		return !slices.ContainsFunc(deployments.Items, func(d api.Deployment) bool { return d.Ended == nil }), nil
	})
}

func poll(ctx context.Context, done func() (bool, error)) error {
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

var versionOf = regexp.MustCompile(`(example\.com/hello:1\.0\.|hello from version 1\.0\.)(\d+)`)

// merge writes the next version of the example hello into the repository.
func (d *demo) merge(ctx context.Context) (version string, err error) {
	work := filepath.Join(d.dir, "work")
	if err := git(ctx, work, "pull", "--quiet", "--rebase", "origin", "main"); err != nil {
		return "", err
	}
	for _, name := range []string{"deployment.yaml", "service.yaml"} {
		file := filepath.Join(work, "hello", "manifests", name)
		text, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		text = versionOf.ReplaceAllFunc(text, func(match []byte) []byte {
			parts := versionOf.FindSubmatch(match)
			patch, _ := strconv.Atoi(string(parts[2]))
			version = fmt.Sprintf("1.0.%d", patch+1)
			return append(parts[1], strconv.Itoa(patch+1)...)
		})
		if err := os.WriteFile(file, text, 0o644); err != nil {
			return "", err
		}
	}
	return version, commit(ctx, work, "hello "+version)
}

// announce tells the controller of the push, as a Git server would.
func announce(ctx context.Context, c *client.Client, r running) error {
	secret, err := os.ReadFile(r.Secret)
	if err != nil {
		return err
	}
	body := []byte(`{"ref":"refs/heads/main"}`)
	sum := hmac.New(sha256.New, bytes.TrimSpace(secret))
	sum.Write(body)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.Address+"/api/v1/webhooks/demo", bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(sum.Sum(nil)))
	request.Header.Set("X-GitHub-Delivery", fmt.Sprint(time.Now().UnixNano()))
	request.Header.Set("X-GitHub-Event", "push")
	answer, err := c.HTTP.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusAccepted {
		return fmt.Errorf("the controller answered %s to the webhook", answer.Status)
	}
	return nil
}

// watch shows the newest deployment of hello until it is done.
func (d *demo) watch(ctx context.Context, c *client.Client) error {
	id, began := "", time.Now()
	if err := poll(ctx, func() (bool, error) {
		var found struct{ Items []api.Deployment }
		err := c.Call(ctx, http.MethodGet, "/deployments?limit=1&application="+url.QueryEscape("hello"), nil, &found)
		if err != nil || len(found.Items) == 0 {
			return false, err
		}
		id, began = found.Items[0].ID, found.Items[0].Created
		head, err := d.head(ctx)
		return err == nil && found.Items[0].Commit == head, err
	}); err != nil {
		return err
	}
	err := c.Follow(ctx, id, 0, func(e api.Event) bool {
		line := fmt.Sprintf("  %5.1fs  %s", e.At.Sub(began).Seconds(), e.What)
		if e.Why != "" {
			line += ": " + e.Why
		}
		fmt.Println(line)
		return e.Kind != "deployment.state" || !final(e.What)
	})
	if err != nil {
		return err
	}
	deployment, err := c.Deployment(ctx, id)
	if err == nil && deployment.State != "SUCCEEDED" {
		err = fmt.Errorf("the deployment is %s: %s", deployment.State, deployment.Why)
	}
	return err
}

func final(what string) bool {
	return strings.HasSuffix(what, " SUCCEEDED") || strings.HasSuffix(what, " FAILED") || strings.HasSuffix(what, " CANCELLED")
}

func (d *demo) head(ctx context.Context) (string, error) {
	command := exec.CommandContext(ctx, "git", "rev-parse", "HEAD")
	command.Dir = filepath.Join(d.dir, "work")
	out, err := command.Output()
	return strings.TrimSpace(string(out)), err
}

// tell prints what runs in both clusters, and what to do next.
func (d *demo) tell(ctx context.Context, r running) error {
	fmt.Println("\nwhat runs now:")
	for _, name := range targets {
		lines, err := pods(ctx, r.Kubeconfigs[name])
		if err != nil {
			return fmt.Errorf("cluster %s: %w", name, err)
		}
		for _, line := range lines {
			fmt.Printf("  %-8s %s\n", name, line)
		}
	}
	if r.Simulated {
		fmt.Println("  (the clusters are real Kubernetes control planes; their pods are simulated)")
	}
	work := filepath.Join(d.dir, "work")
	fmt.Printf(`
the next change:    edit files in %[1]s, then: git -C %[1]s commit -am 'my change' && git -C %[1]s push origin HEAD:main
see it roll out:    export TOWPATH_ADDR=%[2]s TOWPATH_CA=%[3]s TOWPATH_TOKEN_FILE=%[4]s
                    %[5]s/towpath deploy status --watch
look inside:        kubectl --kubeconfig %[6]s get pods -n %[7]s
another round:      make demo
stop everything:    make demo-stop
`, work, r.Address, r.CA, r.Token, d.programs, r.Kubeconfigs["prod"], namespace)
	return nil
}

// pods counts the ready pods of each workload and names their image.
func pods(ctx context.Context, kubeconfig string) ([]string, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	c, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	list, err := c.Resource(schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "replicasets"}).Namespace(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, set := range list.Items {
		ready, _, _ := unstructured.NestedInt64(set.Object, "status", "readyReplicas")
		if ready == 0 {
			continue
		}
		containers, _, _ := unstructured.NestedSlice(set.Object, "spec", "template", "spec", "containers")
		image := ""
		if len(containers) > 0 {
			image, _ = containers[0].(map[string]any)["image"].(string)
		}
		lines = append(lines, fmt.Sprintf("%d pods of %s (%s)", ready, set.GetName(), image))
	}
	slices.Sort(lines)
	return lines, nil
}
