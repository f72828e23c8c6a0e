package cluster_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sirupsen/logrus"

	"towpath/cluster"
	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// BenchmarkFirstDeployments compares Look, Apply and a fresh read of an app of five objects with a client that does nothing but apply them, eight at once,
// on one API server whose etcd does not fsync. Each iteration is one app.
func BenchmarkFirstDeployments(b *testing.B) {
	kube := shared.Cluster(b)
	transport := kube.Transport(b)
	app := func(t testing.TB, namespace string, i int) []manifest.Object {
		web := strings.Replace(strings.Replace(web, "replicas: 2", "replicas: 0", 1), `image: "example.com/web:1"`, `image: "example.com/web:1", envFrom: [{configMapRef: {name: settings}}]`, 1)
		text := strings.ReplaceAll(strings.Join([]string{account, settings, service, web, ingress}, "\n---\n"), "NS", namespace)
		return objectsOf(t, strings.NewReplacer("name: web", fmt.Sprintf("name: web-%d", i), "name: settings", fmt.Sprintf("name: settings-%d", i)).Replace(text))
	}
	b.Run("plain", func(b *testing.B) {
		namespace := kube.Namespace(b)
		paths := map[string]string{"ServiceAccount": "/api/v1/namespaces/%s/serviceaccounts/%s", "ConfigMap": "/api/v1/namespaces/%s/configmaps/%s",
			"Service": "/api/v1/namespaces/%s/services/%s", "Deployment": "/apis/apps/v1/namespaces/%s/deployments/%s", "Ingress": "/apis/networking.k8s.io/v1/namespaces/%s/ingresses/%s"}
		eightAtOnce(b, func(i int) error {
			for _, o := range app(b, namespace, i) {
				request, err := http.NewRequestWithContext(b.Context(), http.MethodPatch, "http://kubernetes"+fmt.Sprintf(paths[o.Kind], namespace, o.Name)+"?fieldManager=plain&force=true", bytes.NewReader(o.JSON))
				if err != nil {
					return err
				}
				request.Header.Set("Content-Type", "application/apply-patch+yaml")
				response, err := transport.RoundTrip(request)
				if err != nil {
					return err
				}
				if _, err := io.Copy(io.Discard, response.Body); err != nil {
					return err
				}
				response.Body.Close()
				if response.StatusCode >= 300 {
					return fmt.Errorf("%s: %s", o.Key, response.Status)
				}
			}
			return nil
		})
	})
	b.Run("cluster", func(b *testing.B) {
		namespace := kube.Namespace(b)
		client, err := cluster.New(cluster.Config{Transport: transport, Reviser: reviser, Log: logrus.NewEntry(logrus.New())})
		ok(b, err)
		defer client.Close()
		eightAtOnce(b, func(i int) error {
			id := rollout.Identity{Tenant: "main", Application: fmt.Sprint("app-", i), Target: "prod", Account: "prod", Deployment: "d", Number: 1}
			objects := app(b, namespace, i)
			set, err := reviser.Names(objects)
			if err != nil {
				return err
			}
			look := client.Look(b.Context(), id, rollout.Read{Revisions: true, Workloads: []manifest.Key{set.Revisions[0].Workload}}, []string{namespace})
			if look.Failure != nil {
				return look.Failure
			}
			out := client.Apply(b.Context(), id, objects, rollout.Action{Replicas: []rollout.Replicas{{Key: set.Revisions[0].ReplicaSet}}})
			if out.Failure != nil {
				return out.Failure
			}
			if look := client.Look(b.Context(), id, rollout.Read{Objects: []manifest.Key{set.Revisions[0].ReplicaSet}}, nil); look.Failure != nil {
				return look.Failure
			}
			return nil
		})
	})
}

// eightAtOnce runs one app an iteration.
func eightAtOnce(b *testing.B, do func(i int) error) {
	b.ResetTimer()
	var next atomic.Int64
	var running sync.WaitGroup
	for range 8 {
		running.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= b.N {
					return
				}
				if err := do(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	running.Wait()
	b.ReportMetric(float64(5*b.N)/b.Elapsed().Seconds(), "objects/s")
}
