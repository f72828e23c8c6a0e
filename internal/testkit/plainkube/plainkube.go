// Package plainkube is an API server small enough that a test may have fifty: it keeps ConfigMaps, as a rollout applies, reads and watches them, and answers
// when the test lets it. What a real one makes of objects is tested on a real one.
package plainkube

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"sync"
	"testing"

	"sigs.k8s.io/yaml"
)

// Cluster is the server. Use New; safe for concurrent use.
type Cluster struct {
	*httptest.Server

	before func(*http.Request) int

	mu      sync.Mutex
	objects map[string]map[string]any // by path
	version int
}

// New starts a server until the test ends. before, when set, is called with each request, and may hold it up; a status other than 0 is the answer.
func New(t testing.TB, before func(*http.Request) (status int)) *Cluster {
	c := &Cluster{objects: map[string]map[string]any{}, before: before}
	c.Server = httptest.NewUnstartedServer(c)
	c.EnableHTTP2 = true
	c.StartTLS()
	t.Cleanup(c.Close)
	return c
}

// discovery is what the server says that it serves.
var discovery = map[string]string{
	"/version": `{"major":"1","minor":"37","gitVersion":"v1.37.2"}`,
	"/api":     `{"kind":"APIVersions","versions":["v1"]}`,
	"/apis": `{"kind":"APIGroupList","apiVersion":"v1","groups":[{"name":"apps","versions":[{"groupVersion":"apps/v1","version":"v1"}],
		"preferredVersion":{"groupVersion":"apps/v1","version":"v1"}}]}`,
	"/api/v1": `{"kind":"APIResourceList","groupVersion":"v1","resources":[
		{"name":"configmaps","namespaced":true,"kind":"ConfigMap","verbs":["get","list","watch","patch","delete"]},
		{"name":"namespaces","namespaced":false,"kind":"Namespace","verbs":["get"]}]}`,
	"/apis/apps/v1": `{"kind":"APIResourceList","groupVersion":"apps/v1","resources":[{"name":"replicasets","namespaced":true,"kind":"ReplicaSet","verbs":["get","list","watch"]},
		{"name":"deployments","namespaced":true,"kind":"Deployment","verbs":["get","list","watch"]}]}`,
}

// ServeHTTP implements http.Handler.
func (c *Cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if c.before != nil {
		if status := c.before(r); status != 0 {
			refuse(w, status)
			return
		}
	}
	w.Header().Set("Content-Type", "application/json")
	switch text := discovery[r.URL.Path]; {
	case text != "":
		fmt.Fprint(w, text)
	case r.URL.Query().Get("watch") != "":
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		<-r.Context().Done() // nothing happens
	case r.Method == http.MethodPatch:
		c.apply(w, r)
	case r.Method == http.MethodGet:
		c.read(w, r)
	default:
		refuse(w, http.StatusMethodNotAllowed)
	}
}

func refuse(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","code":%d,"reason":%q,"message":"a plain server says %s"}`,
		status, strings.ReplaceAll(http.StatusText(status), " ", ""), http.StatusText(status))
}

// apply takes an object as it is.
func (c *Cluster) apply(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(r.Body)
	var object map[string]any
	if err == nil {
		err = yaml.Unmarshal(text, &object)
	}
	metadata, ok := object["metadata"].(map[string]any)
	if err != nil || !ok {
		refuse(w, http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.version++
	metadata["resourceVersion"], metadata["uid"], metadata["creationTimestamp"] = fmt.Sprint(c.version), "uid-"+r.URL.Path, "2026-03-02T09:00:00Z"
	c.objects[r.URL.Path] = object
	_ = json.NewEncoder(w).Encode(object)
}

// read answers with an object, or with those below a path.
func (c *Cluster) read(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if object := c.objects[r.URL.Path]; object != nil {
		_ = json.NewEncoder(w).Encode(object)
		return
	}
	kind := map[string]string{"configmaps": "ConfigMap", "replicasets": "ReplicaSet", "deployments": "Deployment"}[path.Base(r.URL.Path)]
	if kind == "" {
		refuse(w, http.StatusNotFound)
		return
	}
	items := []any{}
	for at, object := range c.objects {
		if strings.HasPrefix(at, r.URL.Path+"/") {
			items = append(items, object)
		}
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"kind": kind + "List", "apiVersion": "v1", "metadata": map[string]any{"resourceVersion": fmt.Sprint(c.version)}, "items": items})
}
