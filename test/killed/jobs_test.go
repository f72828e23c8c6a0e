package killed

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"

	"towpath/api"
	"towpath/internal/testkit/receiver"
	"towpath/internal/testkit/world"
)

// jobs are called by webhooks, and call back until they are heard.
type jobs struct {
	*receiver.Receiver
	t       *testing.T
	client  *http.Client
	running sync.WaitGroup

	mu   sync.Mutex
	keys map[string]map[string]bool // that were called with, by deployment
}

func startJobs(t *testing.T) *jobs {
	j := &jobs{Receiver: receiver.Start(t), t: t, keys: map[string]map[string]bool{}}
	t.Cleanup(j.running.Wait)
	return j
}

// callBack has each job call back to a world's controller, which may be dead just then.
func (j *jobs) callBack(w *world.World) {
	pem, err := os.ReadFile(w.CA())
	if err != nil {
		j.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	j.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	j.Reply(func(out http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/metric" {
			out.Header().Set("Content-Type", "application/json")
			io.WriteString(out, `{"value": 0.5}`)
			return
		}
		calls := j.Calls()
		var asked struct{ Deployment, Back, Token string }
		if err := json.Unmarshal([]byte(calls[len(calls)-1].Body), &asked); err != nil {
			j.t.Errorf("a job was called with %v", err)
			return
		}
		j.called(asked.Deployment, r.Header.Get("Idempotency-Key"))
		j.running.Go(func() {
			w.Await("a callback to be heard", func() (bool, error) { return j.heard(asked.Back, asked.Token), nil })
		})
	})
}

func (j *jobs) called(deployment, key string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.keys[deployment] == nil {
		j.keys[deployment] = map[string]bool{}
	}
	j.keys[deployment][key] = true
}

// heard calls back once, and reports whether that was heard: a second time is refused, and so is what comes too late.
func (j *jobs) heard(uri, token string) bool {
	request, err := http.NewRequest(http.MethodPost, uri+"/callback", strings.NewReader(`{"success": true, "mdMessage": "done"}`))
	if err != nil {
		j.t.Error(err)
		return true
	}
	request.Header.Set("Authorization", "Bearer "+token)
	answer, err := j.client.Do(request)
	if err != nil {
		return false
	}
	said, _ := io.ReadAll(answer.Body) // for the message
	answer.Body.Close()
	switch answer.StatusCode {
	case http.StatusNoContent, http.StatusConflict:
		return true
	case http.StatusInternalServerError: // it died just then
		return false
	}
	j.t.Error(fmt.Errorf("a callback was answered %s: %s", answer.Status, said))
	return true
}

// keysOf is with how many keys the job of a deployment was called.
func (j *jobs) keysOf(deployment string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.keys[deployment])
}

// measurements is what a deployment has measured: each run once, whoever died meanwhile.
func (c *cutting) measurements(deployment string) string {
	c.Helper()
	var found struct{ Items []api.Called }
	if err := c.API.Call(c.Context(), http.MethodGet, "/deployments/"+deployment+"/calls", nil, &found); err != nil {
		c.Fatal(err)
	}
	var runs []string
	for _, m := range found.Items {
		of := ""
		if m.Baseline != "" {
			of = " of the baseline"
		}
		runs = append(runs, fmt.Sprintf("%s%s %d: %s", m.Name, of, m.Run, m.State))
	}
	return strings.Join(runs, ", ")
}
