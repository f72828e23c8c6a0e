package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/cli"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"towpath/api"
	"towpath/api/client"
	"towpath/charts"
)

// installation is how an agent is installed in the cluster of a kubeconfig's context.
type installation struct {
	context    string
	current    bool
	namespace  string
	image, tag string
	deploysTo  []string
	values     string // file
	wait       time.Duration
}

func (i *installation) flags(f *pflag.FlagSet) {
	f.StringVar(&i.context, "context-name", "", "install the agent in the cluster of this context of the kubeconfig, and wait until it connects")
	f.BoolVar(&i.current, "use-current-context", false, "the same in that of the current context")
	f.StringVar(&i.namespace, "namespace", "towpath-agent", "namespace that the agent is installed in; it is made when it is not there")
	f.StringVar(&i.image, "image", "", "repository of the agent's image, as make images pushed it")
	f.StringVar(&i.tag, "tag", "", "its tag; absent: the chart's version")
	f.StringSliceVar(&i.deploysTo, "deploys-to", nil, "namespaces that the agent may deploy to; they have to be there")
	f.StringVar(&i.values, "values", "", "file with further values of the agent's chart, as YAML")
	f.DurationVar(&i.wait, "wait", 5*time.Minute, "how long to wait until it connects")
}

func (i *installation) wanted() bool { return i.current || i.context != "" }

func (i *installation) check() error {
	switch {
	case !i.wanted() && (i.image != "" || i.tag != "" || i.values != "" || len(i.deploysTo) > 0):
		return errors.New("--image, --tag, --values and --deploys-to say how an agent is installed; give --use-current-context or --context-name, too")
	case !i.wanted():
		return nil
	case i.current && i.context != "":
		return errors.New("give --context-name or --use-current-context, not both")
	case i.image == "":
		return errors.New("an agent that is to be installed needs --image: the repository that `make images REGISTRY=…` pushed to, as registry.example.com/towpath/towpath-agent")
	}
	return nil
}

// credentials is the name of the Secret that holds an agent's credential in its cluster.
const credentials = "towpath-agent"

// values of the agent's chart for a credential that lies in the Secret.
func values(made api.Credential) map[string]any {
	hub := map[string]any{"address": made.Hub}
	if made.CA != "" {
		hub["caSecret"] = credentials
	}
	ref := func(key string) string { return "encrypted:k8s!n:" + credentials + "!k:" + key }
	return map[string]any{"agentIdentifier": made.Agent, "clientId": ref("client-id"), "clientSecret": ref("client-secret"), "hub": hub,
		"identity": map[string]any{"issuer": made.Issuer, "audience": made.Audience}}
}

// command is what installs an agent by hand.
func command(made api.Credential) string {
	var text strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&text, format, args...) }
	line("to install it, in its cluster, with the image that you pushed and the namespaces that it may deploy to:\n\n")
	line("kubectl create namespace towpath-agent && kubectl -n towpath-agent create secret generic %s \\\n", credentials)
	line("  --from-literal=client-id='%s' --from-literal=client-secret='%s'", made.ClientID, made.Secret)
	ca := ""
	if made.CA != "" {
		line(" \\\n  --from-literal=ca.crt='%s'", strings.TrimSpace(made.CA))
		ca = " --set hub.caSecret=" + credentials
	}
	line(" \\\n&& helm install towpath-agent charts/towpath-agent -n towpath-agent --wait --set image.repository=IMAGE --set 'kubernetes.namespaces={NAMESPACE}' \\\n")
	line("  --set agentIdentifier=%s --set clientId='encrypted:k8s!n:%[2]s!k:client-id' --set clientSecret='encrypted:k8s!n:%[2]s!k:client-secret' \\\n", made.Agent, credentials)
	line("  --set hub.address=%s%s --set identity.issuer=%s --set identity.audience=%s\n", made.Hub, ca, made.Issuer, made.Audience)
	return text.String()
}

// replacing is what gives an agent that runs a new secret. It reads the file anew at each fetch of a token.
func replacing(made api.Credential) string {
	return fmt.Sprintf("to give it to the agent, in its cluster, where it takes it on by itself within a minute or two:\n\nkubectl -n towpath-agent patch secret %s --type merge -p '{\"stringData\":{\"client-secret\":\"%s\"}}'\n", credentials, made.Secret)
}

// install puts the credential into the cluster, installs the chart, and waits until the controller sees the agent.
func (c *commandLine) install(ctx context.Context, to *client.Client, made api.Credential, i installation) error {
	settings := cli.New()
	settings.KubeContext = i.context
	settings.SetNamespace(i.namespace)
	getter := settings.RESTClientGetter()
	config, err := getter.ToRESTConfig()
	if err != nil {
		return fmt.Errorf("the kubeconfig: %w", err)
	}
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	if err := keepCredential(ctx, kube, i.namespace, made); err != nil {
		return fmt.Errorf("the credential of agent %s cannot be put into %s: %w; it was made all the same: towpath agent remove %s", made.Agent, config.Host, err, made.Agent)
	}
	var helm action.Configuration
	if err := helm.Init(getter, i.namespace, "secret", func(string, ...any) {}); err != nil {
		return err
	}
	loaded, err := charts.Load(charts.Agent)
	if err != nil {
		return err
	}
	all := values(made)
	all["image"] = map[string]any{"repository": i.image, "tag": i.tag}
	if len(i.deploysTo) > 0 {
		names := make([]any, len(i.deploysTo))
		for n, name := range i.deploysTo {
			names[n] = name
		}
		all["kubernetes"] = map[string]any{"namespaces": names}
	}
	if i.values != "" {
		more, err := chartutil.ReadValuesFile(i.values)
		if err != nil {
			return fmt.Errorf("--values: %w", err)
		}
		all = chartutil.CoalesceTables(more, all)
	}
	install := action.NewInstall(&helm)
	install.ReleaseName, install.Namespace = "towpath-agent", i.namespace
	if _, err := install.RunWithContext(ctx, loaded, all); err != nil {
		return fmt.Errorf("the chart cannot be installed in %s: %w", config.Host, err)
	}
	return c.awaitAgent(ctx, to, made.Agent, i)
}

func keepCredential(ctx context.Context, kube kubernetes.Interface, namespace string, made api.Credential) error {
	_, err := kube.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: credentials}, StringData: map[string]string{"client-id": made.ClientID, "client-secret": made.Secret}}
	if made.CA != "" {
		secret.StringData["ca.crt"] = made.CA
	}
	_, err = kube.CoreV1().Secrets(namespace).Create(ctx, secret, metav1.CreateOptions{})
	return err
}

// awaitAgent waits until the controller sees an agent.
func (c *commandLine) awaitAgent(ctx context.Context, to *client.Client, name string, i installation) error {
	c.line("installed in namespace %s; waiting until it connects", i.namespace)
	ctx, cancel := context.WithTimeout(ctx, i.wait)
	defer cancel()
	each := time.NewTicker(time.Second)
	defer each.Stop()
	for {
		var found struct{ Items []api.Agent }
		err := to.Call(ctx, http.MethodGet, "/agents", nil, &found)
		for _, a := range found.Items {
			if a.Name == name && a.Connected {
				c.line("agent %s is connected", name)
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("agent %s did not connect within %s (%w); see why: kubectl -n %s logs deployment/towpath-agent", name, i.wait, cmp.Or(err, ctx.Err()), i.namespace)
		case <-each.C:
		}
	}
}
