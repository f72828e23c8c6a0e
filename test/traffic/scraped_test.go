package traffic

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"towpath/internal/testkit/prometheus"
	"towpath/internal/testkit/receiver"
	"towpath/internal/testkit/world"
)

// scraped leads a Prometheus outside of the cluster to what the pods of one namespace count, by the API server's proxy.
type scraped struct {
	URL string // where it finds them

	client    kubernetes.Interface
	namespace atomic.Pointer[string]
}

func newScraped(t *testing.T) *scraped {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", shared.Clusters["prod"].Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	s := &scraped{}
	if s.client, err = kubernetes.NewForConfig(config); err != nil {
		t.Fatal(err)
	}
	s.namespace.Store(new(string))
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	s.URL = server.URL
	return s
}

func (s *scraped) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	type group struct {
		Targets []string          `json:"targets"`
		Labels  map[string]string `json:"labels"`
	}
	found := []group{}
	namespace := *s.namespace.Load()
	if pod := strings.TrimPrefix(r.URL.Path, "/"); pod != "" {
		text, err := s.client.CoreV1().Pods(namespace).ProxyGet("http", pod, "8080", "/metrics", nil).DoRaw(r.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		w.Write(text)
		return
	}
	if namespace != "" {
		pods, err := s.client.CoreV1().Pods(namespace).List(r.Context(), metav1.ListOptions{LabelSelector: "app=hello"})
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		for _, pod := range pods.Items {
			found = append(found, group{[]string{r.Host}, map[string]string{"__metrics_path__": "/" + pod.Name, "pod": pod.Name}})
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(found)
}

// judged is an application whose canary is judged by what its pods count, once a job says that there is something to count.
type judged struct {
	*world.World
	job     *receiver.Receiver
	metrics *prometheus.Server
}

// judge is what comes before an analysis, and the analysis.
const judge = `{runWebhook: {name: counted}}, {analysis: {queries: [errors], interval: 1, units: seconds, numberOfJudgmentRuns: 2, MODE}}`

// newJudged starts all of it; provider is what the configuration says of the metric provider beside its credentials, where URL is Prometheus' own.
func newJudged(t *testing.T, provider string) (j *judged, extra string) {
	t.Helper()
	pods := newScraped(t)
	j = &judged{job: receiver.Start(t), metrics: prometheus.Start(t, pods.URL)}
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte(prometheus.Password), 0o600); err != nil {
		t.Fatal(err)
	}
	j.World = world.New(t, &shared, nil, world.Configuration(fmt.Sprintf(`egress: {allowHosts: [%[1]q], allowPrivate: [%[1]q]}
metricProviders: [{name: prometheus, type: prometheus, auth: {username: %[2]s, passwordFile: %[3]s}, %[4]s}]
`, j.job.Host, prometheus.User, password, strings.ReplaceAll(provider, "URL", j.metrics.URL))))
	pods.namespace.Store(&j.Namespace)
	return j, fmt.Sprintf(`webhooks: [{name: counted, method: POST, uriTemplate: "%s/counted", bodyTemplate: {inline: "{{armory.replicaSetName}} {{armory.callbackUri}}"}}]
analysis:
  defaultMetricProviderName: prometheus
  queries:
    - name: errors
      upperLimit: 0.2
      queryTemplate: 'sum(hello_requests_total{code="500",pod=~"{{armory.replicaSetName}}-.*"}) / sum(hello_requests_total{pod=~"{{armory.replicaSetName}}-.*"})'
`, j.job.URL)
}

// counted is the job: it calls back once enough requests of visitors to the new version were scraped.
func (j *judged) counted(t *testing.T, call int) {
	t.Helper()
	j.Await("the job to be called", func() (bool, error) { return len(j.job.Calls()) == call, nil })
	replicaSet, callback, _ := strings.Cut(j.job.Calls()[call-1].Body, " ")
	j.metrics.Await(fmt.Sprintf(`sum(hello_requests_total{pod=~"%s-.*"}) > bool 20`, replicaSet), 1)
	id := callback[strings.LastIndexByte(callback, '/')+1:]
	if err := j.API.Call(t.Context(), http.MethodPost, "/callbacks/"+id+"/callback", map[string]any{"success": true}, nil); err != nil {
		t.Fatal(err)
	}
}

// failing is a version of hello of which every second answer is an error.
func failing(version int) string {
	return strings.Replace(hello(version), "          readinessProbe", "          env: [{name: FAIL_EVERY, value: \"2\"}]\n          readinessProbe", 1)
}
