package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/cli"
	"helm.sh/helm/v3/pkg/release"
	"helm.sh/helm/v3/pkg/storage/driver"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/remotecommand"

	"towpath/charts"
	"towpath/internal/localkube"
)

const (
	// controllerImage is what the controller's pod runs, as agentImage is for the agents.
	controllerImage = "example.com/towpath-controller"
	// controllerNamespace is where the controller is installed, in the cluster staging.
	controllerNamespace = "towpath"
	// webhookSecret is the Secret with what signs the repository's webhook.
	webhookSecret = "demo-webhook"
	// mounted is where the controller's pod has the repository.
	mounted = "/srv/repository.git"
)

// installation is the controller's, as its chart makes it.
type installation struct {
	kubeconfig string
	config     *rest.Config
	kube       *kubernetes.Clientset
}

// installController installs the controller's chart in the cluster staging, or brings it up to date, and leads the demo's addresses to its pod.
func (s *background) installController(ctx context.Context, r running) (address string, err error) {
	i := &installation{kubeconfig: r.Kubeconfigs[targets[0]]}
	if i.config, err = clientcmd.BuildConfigFromFlags("", i.kubeconfig); err != nil {
		return "", err
	}
	i.config.QPS = -1
	if i.kube, err = kubernetes.NewForConfig(i.config); err != nil {
		return "", err
	}
	if err := keep(r.Secret, random()); err != nil {
		return "", err
	}
	if err := i.webhook(ctx, r.Secret); err != nil {
		return "", err
	}
	if err := i.install(ctx, s.values(r)); err != nil {
		return "", fmt.Errorf("the controller's chart cannot be installed in the cluster %s: %w", targets[0], err)
	}
	s.going.Go(func() { i.lead(ctx, s.api, "8080") })
	s.going.Go(func() { i.lead(ctx, s.hub, "8443") })
	if err := i.authority(ctx, r.CA); err != nil {
		return "", err
	}
	r.Address = "https://" + s.api
	if err := i.token(ctx, r, filepath.Join(s.programs, "towpath-controller")); err != nil {
		return "", err
	}
	return r.Address, s.serves(ctx, r, "in a pod of the cluster "+targets[0]+", installed by its chart, on SQLite", i.broken)
}

// values of the chart.
func (s *background) values(r running) map[string]any {
	var allowed []any
	for _, name := range namespaces {
		allowed = append(allowed, name)
	}
	return map[string]any{
		"image":   map[string]any{"repository": controllerImage},
		"secrets": []any{webhookSecret},
		"config": map[string]any{
			"externalURL": "https://" + s.api,
			"agents":      map[string]any{"address": inPods(s.hub)},
			"sources": []any{map[string]any{"name": "demo", "url": mounted, "branch": "main", "schedule": "@every 30s",
				"webhook": map[string]any{"secretFiles": []any{"/etc/towpath/secrets/" + webhookSecret + "/secret"}},
				"allow":   []any{map[string]any{"accounts": []any{"staging", "prod"}, "namespaces": allowed, "kinds": []any{"*"}}}}},
		},
		"extraVolumes":      []any{map[string]any{"name": "repository", "hostPath": map[string]any{"path": r.Repository}}},
		"extraVolumeMounts": []any{map[string]any{"name": "repository", "mountPath": mounted, "readOnly": true}},
	}
}

// webhook puts what signs the webhook into the cluster.
func (i *installation) webhook(ctx context.Context, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := localkube.Namespaces(ctx, i.kubeconfig, controllerNamespace); err != nil {
		return err
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: webhookSecret}, Data: map[string][]byte{"secret": text}}
	_, err = i.kube.CoreV1().Secrets(controllerNamespace).Create(ctx, secret, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// install installs the chart, or upgrades what is installed to this chart and these values.
func (i *installation) install(ctx context.Context, values map[string]any) error {
	settings := cli.New()
	settings.KubeConfig, settings.KubeContext = i.kubeconfig, "" // whatever HELM_KUBECONTEXT says
	settings.SetNamespace(controllerNamespace)
	var helm action.Configuration
	if err := helm.Init(settings.RESTClientGetter(), controllerNamespace, "secret", func(string, ...any) {}); err != nil {
		return err
	}
	loaded, err := charts.Load(charts.Controller)
	if err != nil {
		return err
	}
	last, err := helm.Releases.Last(charts.Controller)
	switch {
	case errors.Is(err, driver.ErrReleaseNotFound):
	case err != nil:
		return err
	case last.Info.Status == release.StatusDeployed:
		upgrade := action.NewUpgrade(&helm)
		upgrade.Namespace, upgrade.MaxHistory = controllerNamespace, 2
		_, err := upgrade.RunWithContext(ctx, charts.Controller, loaded, values)
		return err
	default: // a demo that was ended on the way; keys, certificate and data stay
		if _, err := action.NewUninstall(&helm).Run(charts.Controller); err != nil {
			return err
		}
	}
	install := action.NewInstall(&helm)
	install.ReleaseName, install.Namespace = charts.Controller, controllerNamespace
	_, err = install.RunWithContext(ctx, loaded, values)
	return err
}

// authority writes the certificate that the chart made into a file.
func (i *installation) authority(ctx context.Context, file string) error {
	made, err := i.kube.CoreV1().ConfigMaps(controllerNamespace).Get(ctx, "towpath-ca", metav1.GetOptions{})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(made.Data["ca.crt"]), 0o600)
}

// token makes the demo's token, at first, by the program in the pod.
func (i *installation) token(ctx context.Context, r running, program string) error {
	if exists(r.Token) {
		return nil
	}
	pod, err := i.pod(ctx)
	if err != nil {
		return err
	}
	command := []string{program, "token", "create", "--name", "demo", "--grant", "admin"}
	to := i.kube.CoreV1().RESTClient().Post().Namespace(controllerNamespace).Resource("pods").Name(pod).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Command: command, Stdout: true, Stderr: true}, scheme.ParameterCodec).URL()
	executor, err := remotecommand.NewSPDYExecutor(i.config, http.MethodPost, to)
	if err != nil {
		return err
	}
	var secret, words bytes.Buffer
	if err := executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &secret, Stderr: &words}); err != nil {
		return fmt.Errorf("make a token: %w: %s", err, strings.TrimSpace(words.String()))
	}
	return os.WriteFile(r.Token, secret.Bytes(), 0o600)
}

// pod waits until the controller's pod is ready, and returns its name.
func (i *installation) pod(ctx context.Context) (name string, err error) {
	err = poll(ctx, func() (bool, error) {
		pods, err := i.pods(ctx)
		if err != nil {
			return false, err
		}
		for _, pod := range pods {
			if slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue }) {
				name = pod.Name
				return true, nil
			}
		}
		return false, i.broken(ctx)
	})
	return name, err
}

func (i *installation) pods(ctx context.Context) ([]corev1.Pod, error) {
	list, err := i.kube.CoreV1().Pods(controllerNamespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=controller"})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list.Items, func(pod corev1.Pod) bool { return pod.DeletionTimestamp != nil }), nil
}

// broken is what a controller said that ends again and again.
func (i *installation) broken(ctx context.Context) error {
	pods, err := i.pods(ctx)
	if err != nil {
		return err
	}
	for _, pod := range pods {
		for _, c := range pod.Status.ContainerStatuses {
			if c.State.Waiting == nil || c.State.Waiting.Reason != "CrashLoopBackOff" {
				continue
			}
			lines := int64(5)
			said, err := i.kube.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, &corev1.PodLogOptions{Previous: true, TailLines: &lines}).DoRaw(ctx)
			return errors.Join(fmt.Errorf("the controller ends by itself: %s", bytes.TrimSpace(said)), err)
		}
	}
	return nil
}
