package charts

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"towpath/api"
	"towpath/internal/localkube"
	"towpath/internal/localstack"
	"towpath/internal/testkit/pages"
	"towpath/internal/testkit/postgres"
	"towpath/internal/testkit/rendertools"
)

// Both charts are installed as their pages say, and their pods run: the controller and its agents are processes with addresses of their own, reached by
// Services, probed, and restarted by upgrades. A first deployment goes through them.
func TestTheChartsInstallDeployUpgradeAndLeave(t *testing.T) {
	c := start(t)
	c.takesRenders()

	// The controller.
	controller := []string{filepath.Join(c.root, "charts/towpath"), "-n", "towpath", "--wait", "--timeout", "2m", "--set", "image.repository=example.com/towpath-controller"}
	notes := c.run("helm", append([]string{"install", "towpath", "--create-namespace"}, controller...)...)
	c.contains("the notes", notes, "https://towpath.towpath.svc", "exec deploy/towpath -- towpath-controller token create", "towpath-hub.towpath.svc:8443")
	token := strings.TrimSpace(c.run("kubectl", "-n", "towpath", "exec", "deploy/towpath", "--", "towpath-controller", "token", "create", "--name", "me", "--grant", "admin"))
	c.write("ca.crt", c.run("kubectl", "-n", "towpath", "get", "configmap", "towpath-ca", "-o", `jsonpath={.data.ca\.crt}`))
	c.env = append(c.env, "TOWPATH_TOKEN="+token, "TOWPATH_CA="+filepath.Join(c.dir, "ca.crt"))
	hangUp := c.forward()

	// An agent.
	var credential api.Credential
	if err := json.Unmarshal([]byte(c.run("towpath", "agent", "create", "prod", "-o", "json")), &credential); err != nil {
		t.Fatal(err)
	}
	c.run("kubectl", "create", "namespace", "towpath-agent")
	c.run("kubectl", "-n", "towpath-agent", "create", "secret", "generic", "towpath-agent", "--from-literal=agent=prod",
		"--from-literal=client-id="+credential.ClientID, "--from-literal=client-secret="+credential.Secret)
	agent := []string{filepath.Join(c.root, "charts/towpath-agent"), "-n", "towpath-agent", "--wait", "--timeout", "2m", "--set", "image.repository=example.com/towpath-agent",
		"--set", "clientId=encrypted:k8s!n:towpath-agent!k:client-id", "--set", "clientSecret=encrypted:k8s!n:towpath-agent!k:client-secret",
		"--set", "hub.address=" + credential.Hub, "--set", "identity.issuer=" + credential.Issuer, "--set-file", "hub.ca=" + filepath.Join(c.dir, "ca.crt"),
		"--set", "kubernetes.namespaces={shop}"}
	notes = c.run("helm", append([]string{"install", "towpath-agent"}, agent...)...)
	c.contains("the agent's notes", notes, "It may deploy to shop", "kubernetes.clusterRoleRules=[")
	c.contains("the list of agents", c.run("towpath", "agent", "list"), "prod  true")

	// A deployment.
	c.deploy("example.com/web:1")

	// An agent that the command line installs, and waits for.
	c.run("kubectl", "create", "namespace", "shop-eu")
	said := c.run("towpath", "agent", "create", "eu", "--label", "region=eu", "--context-name", "localcluster", "--namespace", "towpath-eu", "--image", "example.com/towpath-agent", "--deploys-to", "shop-eu")
	c.contains("installing an agent", said, "to install it, in its cluster", "agent eu is connected")
	c.contains("what it may do", c.run("kubectl", "-n", "shop-eu", "get", "rolebindings", "-o", "name"), "towpath-agent")
	c.contains("what is shown of it", c.run("towpath", "agent", "show", "eu"), "labels:     region=eu", "cluster:")
	c.run("helm", "uninstall", "towpath-agent", "-n", "towpath-eu", "--wait")
	c.run("towpath", "agent", "revoke", "eu")

	// Upgrades.
	kept := c.secrets()
	c.run("helm", append([]string{"upgrade", "towpath"}, controller...)...)
	if now := c.secrets(); now != kept {
		t.Error("an upgrade with nothing new changed the keys, or the certificate")
	}
	hangUp()
	c.run("helm", append([]string{"upgrade", "towpath", "--set", "config.log.format=json", "--set", "tls.hosts={towpath.example.com}"}, controller...)...)
	now := c.secrets()
	if now.keys != kept.keys || now.authority != kept.authority {
		t.Error("an upgrade changed the keys, or the authority that agents trust")
	}
	if now.certificate == kept.certificate {
		t.Error("another name had no certificate made for it")
	}
	hangUp = c.forward()
	c.contains("what is kept over an upgrade", c.run("towpath", "app", "list"), "shop")
	c.run("helm", append([]string{"upgrade", "towpath-agent", "--set", "log.type=json"}, agent...)...)
	c.deploy("example.com/web:2")

	c.shareADatabase()

	// The account of the agent.
	account := "--as=system:serviceaccount:towpath-agent:towpath-agent"
	for _, may := range []struct {
		what []string
		want string
	}{
		{[]string{"create", "replicasets.apps", "-n", "shop"}, "yes"}, {[]string{"create", "pods", "--subresource=exec", "-n", "shop"}, "no"}, {[]string{"create", "pods", "--subresource=portforward", "-n", "shop"}, "no"},
		{[]string{"get", "secrets", "-n", "towpath"}, "no"}, {[]string{"list", "nodes"}, "no"}, {[]string{"get", "namespaces/kube-system"}, "yes"}, {[]string{"get", "namespaces/shop"}, "no"},
	} {
		got, said, _ := c.command("kubectl", append([]string{"auth", "can-i", account}, may.what...)...) // no is an error
		if strings.TrimSpace(got) != may.want {
			t.Errorf("may the agent %s? %s%s, want %s", strings.Join(may.what, " "), got, said, may.want)
		}
	}

	// The end.
	hangUp()
	c.run("helm", "uninstall", "towpath-agent", "-n", "towpath-agent", "--wait")
	c.run("helm", "uninstall", "towpath", "-n", "towpath", "--wait")
	c.run("kubectl", "wait", "--for=delete", "pods", "--all-namespaces", "-l", "app.kubernetes.io/part-of=towpath", "--timeout=60s")
	left := strings.Fields(c.run("kubectl", "get", "all,configmaps,secrets,persistentvolumeclaims,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings,networkpolicies,poddisruptionbudgets,ingresses",
		"--all-namespaces", "-l", "app.kubernetes.io/instance in (towpath,towpath-agent)", "-o", "name"))
	slices.Sort(left)
	if want := []string{"persistentvolumeclaim/towpath", "secret/towpath-keys", "secret/towpath-tls"}; !slices.Equal(left, want) {
		t.Errorf("what stays is %q, want %q", left, want)
	}

	// What stays is enough to begin again where it ended.
	c.run("helm", append([]string{"install", "towpath"}, controller...)...)
	defer c.forward()()
	c.contains("what is kept over an end", c.run("towpath", "app", "list"), "shop")
	if again := c.secrets(); again.keys != kept.keys || again.authority != kept.authority {
		t.Error("a new installation did not take up the keys and the authority that had stayed")
	}
}

// cluster is a local cluster in which the images of the charts are the programs of this module, and somebody at its outside.
type cluster struct {
	t         *testing.T
	root, dir string
	env       []string
}

// start builds the programs and starts a cluster of the test's own.
func start(t *testing.T) *cluster {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "unshare", "-rn", "true").CombinedOutput(); err != nil {
		t.Skipf("this machine allows no network namespaces, so that pods cannot run in the local cluster: %v\n%s", err, out)
	}
	tools := rendertools.Build(t)
	root := pages.Root(t)
	// Not below /tmp: the pods have one of their own.
	build := filepath.Join(root, ".build", "charts")
	programs := filepath.Join(build, "bin")
	var flags []string
	if raceEnabled {
		programs, flags = programs+"-race", []string{"-race"}
	}
	if err := localstack.Build(t.Context(), programs, flags, "./cmd/towpath", "./cmd/towpath-controller", "./cmd/towpath-agent"); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(build, "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := &cluster{t: t, root: root, dir: dir}
	var images strings.Builder
	for _, name := range []string{"towpath-controller", "towpath-agent"} {
		fmt.Fprintf(&images, "- {image: \"example.com/%s:*\", entrypoint: [%s]}\n", name, filepath.Join(programs, name))
	}
	c.write("images.yaml", images.String())
	local := os.Getenv("TOWPATH_LOCALCLUSTER")
	if local == "" {
		local = filepath.Join(root, ".build", "localcluster")
	}
	path := strings.Join([]string{programs, local, filepath.Dir(tools.Helm), os.Getenv("PATH")}, ":")
	t.Setenv("PATH", path) // also of what is run in pods by kubectl exec
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	running, err := localkube.Start(ctx, localkube.Options{Programs: local, Dir: filepath.Join(dir, "cluster"), Images: filepath.Join(dir, "images.yaml")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(running.Stop)
	c.env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "TOWPATH_") || strings.HasPrefix(v, "GITHUB_") }),
		"KUBECONFIG="+running.Kubeconfig, "HOME="+dir)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("pods and events:\n%s\n%s", c.try("kubectl", "get", "pods", "-A", "-o", "wide"), c.try("kubectl", "get", "events", "-A"))
			t.Logf("the controller said:\n%s", c.try("kubectl", "-n", "towpath", "logs", "deploy/towpath", "--tail=40"))
			t.Logf("the agent said:\n%s", c.try("kubectl", "-n", "towpath-agent", "logs", "deploy/towpath-agent", "--tail=40"))
		}
	})
	return c
}

func (c *cluster) write(name, text string) {
	c.t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, name), []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) contains(what, text string, all ...string) {
	c.t.Helper()
	for _, want := range all {
		if !strings.Contains(text, want) {
			c.t.Errorf("%s: there is no %q in\n%s", what, want, text)
		}
	}
}

// shareADatabase installs two controllers on one PostgreSQL database, whose address and keys are in Secrets that were there before. Each knows a token that the
// other one made.
func (c *cluster) shareADatabase() {
	c.t.Helper()
	c.t.Setenv("TMPDIR", "/var/tmp") // where pods see the server's socket
	database := postgres.Start(c.t).Database(c.t)
	c.write("keys", c.run("towpath-controller", "key"))
	c.run("kubectl", "create", "namespace", "shared")
	c.run("kubectl", "-n", "shared", "create", "secret", "generic", "database", "--from-literal=url="+database)
	c.run("kubectl", "-n", "shared", "create", "secret", "generic", "sealing", "--from-file=keys")
	c.run("helm", "install", "shared", filepath.Join(c.root, "charts/towpath"), "-n", "shared", "--wait", "--timeout", "2m", "--set", "image.repository=example.com/towpath-controller", "--set", "replicaCount=2",
		"--set", "persistence.enabled=false", "--set", "database.existingSecret=database", "--set", "keys.existingSecret=sealing")
	pods := strings.Fields(c.run("kubectl", "-n", "shared", "get", "pods", "-o", "name"))
	if len(pods) != 2 {
		c.t.Fatalf("controllers are %q, want two", pods)
	}
	token := strings.TrimSpace(c.run("kubectl", "-n", "shared", "exec", pods[0], "--", "towpath-controller", "token", "create", "--name", "me", "--grant", "admin"))
	for _, pod := range pods {
		c.run("kubectl", "-n", "shared", "exec", pod, "--", "env", "TOWPATH_TOKEN="+token, "towpath", "app", "list")
	}
	c.run("helm", "uninstall", "shared", "-n", "shared", "--wait")
	c.run("kubectl", "delete", "namespace", "shared", "--wait=false")
}

// takesRenders has the API server look at each render of the tests, strictly; kinds of others are not there.
func (c *cluster) takesRenders() {
	c.t.Helper()
	for _, namespace := range []string{"shop", "shop-staging"} {
		c.run("kubectl", "create", "namespace", namespace)
	}
	for _, name := range names {
		for _, file := range valuesFiles(c.t, name) {
			var list []any
			for _, o := range parse(c.t, render(c.t, name, values(c.t, file), false)) {
				if group := o.GroupVersionKind().Group; group != "gateway.networking.k8s.io" && group != "monitoring.coreos.com" {
					list = append(list, o.Object)
				}
			}
			text, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "List", "items": list})
			if err != nil {
				c.t.Fatal(err)
			}
			c.write("render.json", string(text))
			c.run("kubectl", "create", "--dry-run=server", "--validate=strict", "-f", "render.json")
		}
	}
}

// run runs a program that has to succeed, and returns what it printed.
func (c *cluster) run(program string, args ...string) string {
	c.t.Helper()
	out, said, err := c.command(program, args...)
	if err != nil {
		c.t.Fatalf("%s %s: %v\n%s%s", program, strings.Join(args, " "), err, out, said)
	}
	return out
}

// try runs a program that may fail.
func (c *cluster) try(program string, args ...string) string {
	out, said, _ := c.command(program, args...)
	return out + said
}

func (c *cluster) command(program string, args ...string) (out, said string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, program, args...)
	var stdout, stderr bytes.Buffer
	command.Dir, command.Env, command.Stdout, command.Stderr = c.dir, c.env, &stdout, &stderr
	err = command.Run()
	return stdout.String(), stderr.String(), err
}

var forwarding = regexp.MustCompile(`127\.0\.0\.1:(\d+) ->`)

// forward leads a port of this machine to the controller's Service, and points command lines there, until it is told to hang up.
func (c *cluster) forward() (hangUp func()) {
	c.t.Helper()
	command := exec.Command("kubectl", "-n", "towpath", "port-forward", "service/towpath", ":443")
	command.Env, command.Stderr = c.env, c.t.Output()
	out, err := command.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		c.t.Fatal(err)
	}
	hangUp = func() {
		command.Process.Signal(syscall.SIGTERM)
		command.Wait()
	}
	c.t.Cleanup(hangUp)
	var text []byte
	for buffer := make([]byte, 256); ; {
		n, err := out.Read(buffer)
		text = append(text, buffer[:n]...)
		if port := forwarding.FindSubmatch(text); port != nil {
			c.env = append(c.env, "TOWPATH_ADDR=https://localhost:"+string(port[1]))
			return hangUp
		}
		if err != nil {
			c.t.Fatalf("no port leads to the controller: %v\n%s", errors.Join(err, command.Wait()), text)
		}
	}
}

// deploy pushes a version of the application shop, and waits until it is SUCCEEDED.
func (c *cluster) deploy(image string) {
	c.t.Helper()
	c.write("towpath.yaml", `application: shop
targets:
  prod: {account: prod, namespace: shop, strategy: rolling}
manifests: [{path: web.yaml}]
strategies: {rolling: {canary: {steps: [{setWeight: {weight: 100}}]}}}
`)
	c.write("web.yaml", `apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "`+image+`"}]}
`)
	said := c.run("towpath", "deploy", "start", "-f", "towpath.yaml", "--watch")
	c.contains("the deployment", said, "SUCCEEDED")
	ready := c.run("kubectl", "-n", "shop", "get", "replicasets", "-o", `jsonpath={range .items[?(@.status.readyReplicas==2)]}{.spec.template.spec.containers[0].image}{"\n"}{end}`)
	if strings.TrimSpace(ready) != image {
		c.t.Errorf("of shop run %q, want %s", ready, image)
	}
}

// material is what is made at install and has to stay.
type material struct{ keys, authority, certificate string }

func (c *cluster) secrets() material {
	c.t.Helper()
	read := func(name, key string) string {
		text := c.run("kubectl", "-n", "towpath", "get", "secret", name, "-o", "jsonpath={.data."+strings.ReplaceAll(key, ".", `\.`)+"}")
		if text == "" {
			c.t.Fatalf("the Secret %s has no %s", name, key)
		}
		return text
	}
	return material{keys: read("towpath-keys", "keys"), authority: read("towpath-tls", "ca.crt"), certificate: read("towpath-tls", "tls.crt")}
}
