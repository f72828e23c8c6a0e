package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"
)

// tell prints what runs in both clusters, and what to do next.
func (d *demo) tell(ctx context.Context, r running) error {
	fmt.Println("\nWhat runs now:")
	var text bytes.Buffer
	table := tabwriter.NewWriter(&text, 0, 4, 2, ' ', 0)
	for _, name := range targets {
		lines, err := workloads(ctx, r.Kubeconfigs[name])
		if err != nil {
			return fmt.Errorf("cluster %s: %w", name, err)
		}
		for _, line := range lines {
			fmt.Fprintf(table, "  %s\t%s\n", name, line)
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Print(text.String())
	work, kubectl := near(d.work()), "kubectl"
	if len(d.kubeconfigs) == 0 {
		fmt.Println("  The clusters are real Kubernetes control planes. The pods of the examples are simulated" + d.towpathToo(ctx) + ".")
	}
	if own := filepath.Join(d.localcluster, "kubectl"); exists(own) {
		kubectl = near(own)
	}
	fmt.Printf(`
The API:              %[1]s (for towpath: . %[2]s)
The next change:      edit %[3]s/hello/manifests/deployment.yaml, then
                      git -C %[3]s commit -am 'my change' && git -C %[3]s push origin HEAD:main
See it roll out:      . %[2]s && towpath deploy status --watch
Look into a cluster:  %[4]s --kubeconfig %[5]s get pods -n %[6]s
Another round:        make demo
Stop everything:      make demo-stop
`, r.Address, near(d.environment()), work, kubectl, near(r.Kubeconfigs["prod"]), namespace)
	for i := range d.kubeconfigs {
		fmt.Printf("Clean up %-11s  %s --kubeconfig %s delete namespace %s\n", targets[i]+":", kubectl, near(d.kubeconfigs[i]), strings.Join(namespaces, " "))
	}
	return nil
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

func (d *demo) environment() string { return filepath.Join(d.dir, "env") }

// writeEnvironment makes the file that lets a shell reach the demo.
func (s *background) writeEnvironment(r running) error {
	text := fmt.Sprintf("export TOWPATH_ADDR='%s' TOWPATH_CA='%s' TOWPATH_TOKEN_FILE='%s'\nexport PATH='%s':\"$PATH\"\n", r.Address, r.CA, r.Token, s.programs)
	return os.WriteFile(s.environment(), []byte(text), 0o600)
}

// workloads are the ready pods of each workload: how many, of what, and their version or image.
func workloads(ctx context.Context, kubeconfig string) (lines []string, err error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	c, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	sets := c.Resource(schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "replicasets"})
	for _, in := range namespaces {
		list, err := sets.Namespace(in).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		for _, set := range list.Items {
			if ready, _, _ := unstructured.NestedInt64(set.Object, "status", "readyReplicas"); ready > 0 {
				lines = append(lines, fmt.Sprintf("%s\t%s\tready pods: %d\t%s", in, set.GetName(), ready, versionOf(set)))
			}
		}
	}
	slices.Sort(lines)
	return lines, nil
}

// versionOf is the version that a ReplicaSet's pods are labelled with, else their first image.
func versionOf(set unstructured.Unstructured) string {
	if version, found, _ := unstructured.NestedString(set.Object, "spec", "template", "metadata", "labels", "app.kubernetes.io/version"); found {
		return version
	}
	containers, _, _ := unstructured.NestedSlice(set.Object, "spec", "template", "spec", "containers")
	if len(containers) == 0 {
		return ""
	}
	first, _ := containers[0].(map[string]any)
	image, _ := first["image"].(string)
	return image
}
