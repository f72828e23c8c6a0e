package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// appsNamespace is where the small applications have their objects, plainNamespace where a plain client has its own.
const (
	appsNamespace  = "apps"
	plainNamespace = "plain"
)

// deploymentFile is that of an application whose manifests lie beside it.
const deploymentFile = `application: %s
targets: {prod: {account: prod, namespace: ` + appsNamespace + `, strategy: rolling}}
manifests: [{path: app.yaml}]
strategies: {rolling: {canary: {steps: [{setWeight: {weight: 100}}]}}}
`

// appsSite is the installation for the figures of small applications, made at its first use.
func (b *bench) appsSite(ctx context.Context) (*site, error) {
	if s := b.sites["apps"]; s != nil {
		return s, nil
	}
	if err := os.MkdirAll(filepath.Join(b.dir, "apps"), 0o700); err != nil {
		return nil, err
	}
	r, err := newRepository(ctx, filepath.Join(b.dir, "apps", "apps.git"))
	if err != nil {
		return nil, err
	}
	if err := r.commit(ctx, "Begin", map[string]string{"README.md": "Small applications\n"}); err != nil {
		return nil, err
	}
	return b.install(ctx, "apps", r, "prod", appsNamespace, plainNamespace)
}

// client talks to the site's cluster as its administrator, as fast as it can.
func (s *site) client() (*kubernetes.Clientset, error) {
	config, err := clientcmd.BuildConfigFromFlags("", s.cluster.Kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	return kubernetes.NewForConfig(config)
}

func (s *site) makeNamespace(ctx context.Context, name string) error {
	client, err := s.client()
	if err != nil {
		return err
	}
	_, err = client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	return err
}

func appName(i int) string { return fmt.Sprintf("app-%04d", i) }

// smallApps is the files of the applications from one number to another, each of five objects, at a revision.
func (b *bench) smallApps(ctx context.Context, from, to, revision int) (map[string]string, error) {
	dir, err := os.MkdirTemp(b.dir, "dump")
	if err != nil {
		return nil, err
	}
	if _, err := b.applylimit(ctx, "-dump", dir, "-apps", fmt.Sprint(to), "-namespace", appsNamespace, "-rev", fmt.Sprint(revision)); err != nil {
		return nil, err
	}
	files := map[string]string{}
	for i := from; i < to; i++ {
		text, err := os.ReadFile(filepath.Join(dir, appName(i), "app.yaml"))
		if err != nil {
			return nil, err
		}
		files["apps/"+appName(i)+"/app.yaml"] = string(text)
		files["apps/"+appName(i)+"/towpath.yaml"] = fmt.Sprintf(deploymentFile, appName(i))
	}
	return files, nil
}

func (b *bench) applylimit(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, filepath.Join(b.programs, "applylimit"), args...).Output()
	if err != nil {
		return "", fmt.Errorf("applylimit: %w", err)
	}
	return string(out), nil
}

// deployApps adds the applications from one number to another and returns how long it took, from the webhook, until all were healthy.
func (b *bench) deployApps(ctx context.Context, s *site, from, to int) (time.Duration, error) {
	files, err := b.smallApps(ctx, from, to, 1)
	if err != nil {
		return 0, err
	}
	sent, err := s.push(ctx, fmt.Sprintf("Add %d applications", to-from), files)
	if err != nil {
		return 0, err
	}
	var names []string
	for i := from; i < to; i++ {
		names = append(names, appName(i))
	}
	last, err := s.news.await(ctx, sent, names...)
	if err == nil {
		s.apps = to
	}
	return last.Sub(sent), err
}

// withApps is the site once it has at least so many small applications.
func (b *bench) withApps(ctx context.Context, count int) (*site, error) {
	s, err := b.appsSite(ctx)
	if err == nil && s.apps < count {
		_, err = b.deployApps(ctx, s, s.apps, count)
	}
	return s, err
}
