package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// outsideFile is an application that asks somebody outside before anything is done.
const outsideFile = `application: %[1]s
targets: {prod: {account: nobody, namespace: ` + appsNamespace + `, strategy: rolling, constraints: {beforeDeployment: [%[2]s]}}}
manifests: [{path: app.yaml}]
strategies: {rolling: {canary: {steps: [{setWeight: {weight: 100}}]}}}
analysis: {defaultMetricProviderName: outside, queries: [{name: due, queryTemplate: "{{armory.endTimeEpochMillis}}", upperLimit: 1}]}
webhooks: [{name: job, method: POST, uriTemplate: "%[3]s/job", bodyTemplate: {inline: '{"application": "{{armory.applicationName}}", "back": "{{armory.callbackUri}}"}'}}]
`

// world is what is outside: it is asked for measurements, and called by webhooks.
type world struct {
	*httptest.Server

	mu    sync.Mutex
	late  samples           // each measurement came so long after its time
	backs map[string]string // where the job of an application calls back
}

func newWorld() *world {
	w := &world{backs: map[string]string{}}
	w.Server = httptest.NewServer(w)
	return w
}

func (w *world) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	if millis, err := strconv.ParseInt(r.URL.Query().Get("due"), 10, 64); err == nil {
		w.mu.Lock()
		w.late = append(w.late, time.Since(time.UnixMilli(millis)))
		w.mu.Unlock()
		out.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(out, `{"value": 1}`) // who asked has gone
		return
	}
	var asked struct{ Application, Back string }
	if json.NewDecoder(r.Body).Decode(&asked) == nil {
		w.mu.Lock()
		w.backs[asked.Application] = asked.Back
		w.mu.Unlock()
	}
}

// outside is how exactly many analyses measure, what they cost, and how soon a callback is acted upon.
func outside(ctx context.Context, b *bench) error {
	if err := os.MkdirAll(filepath.Join(b.dir, "outside"), 0o700); err != nil {
		return err
	}
	r, err := newRepository(ctx, filepath.Join(b.dir, "outside", "outside.git"))
	if err != nil {
		return err
	}
	if err := r.commit(ctx, "Begin", map[string]string{"README.md": "Applications that ask somebody outside\n"}); err != nil {
		return err
	}
	w := newWorld()
	defer w.Close()
	host := strings.TrimPrefix(w.URL, "http://")
	s, err := b.installWith(ctx, "outside", r, fmt.Sprintf("egress: {allowHosts: [%q], allowPrivate: [%q]}\nmetricProviders: [{name: outside, type: http, url: %q, http: {value: $.value}}]\n",
		host, host, w.URL+"/value?due={{query}}"), "")
	defer b.remove("outside")
	if err != nil {
		return err
	}
	if err := s.calledBack(ctx, b, w); err != nil {
		return err
	}
	return s.measured(ctx, b, w)
}

// calledBack has one job after the other call back, and waits each time until its target goes on.
func (s *site) calledBack(ctx context.Context, b *bench, w *world) error {
	var names []string
	for i := range b.count(200) {
		names = append(names, fmt.Sprintf("job-%04d", i))
	}
	if _, err := s.push(ctx, "Add jobs", outsideFiles(names, "{runWebhook: {name: job}}", w.URL)); err != nil {
		return err
	}
	disturbed := b.quiet.watch()
	var took samples
	for _, name := range names {
		uri, err := w.backOf(ctx, name)
		if err != nil {
			return err
		}
		began := time.Now()
		if err := s.controller.API.Call(ctx, http.MethodPost, "/callbacks/"+uri[strings.LastIndexByte(uri, '/')+1:]+"/callback", map[string]bool{"success": true}, nil); err != nil {
			return err
		}
		started, err := s.news.started(ctx, began, name)
		if err != nil {
			return err
		}
		took = append(took, started.Sub(began))
	}
	b.results.add(disturbed(), figure{Name: "a callback arrives, until its target goes on, p95", Value: took.at(.95), Unit: "ms", Goal: atMost(300), Detail: took.String()})
	return nil
}

// backOf is where the job of an application calls back, once it was called.
func (w *world) backOf(ctx context.Context, name string) (uri string, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		w.mu.Lock()
		uri = w.backs[name]
		w.mu.Unlock()
		if uri != "" {
			return uri, nil
		}
		pause(ctx, 10*time.Millisecond)
		if err := ctx.Err(); err != nil {
			return "", fmt.Errorf("the job of %s was not called: %w", name, err)
		}
	}
}

func outsideFiles(names []string, step, url string) map[string]string {
	files := map[string]string{}
	for _, name := range names {
		files[name+"/towpath.yaml"] = fmt.Sprintf(outsideFile, name, step, url)
		files[name+"/app.yaml"] = fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\n", name)
	}
	return files
}

// measured has many analyses measure each ten seconds.
func (s *site) measured(ctx context.Context, b *bench, w *world) error {
	lasts := time.Minute
	if b.quick {
		lasts = 20 * time.Second
	}
	without := s.load(ctx, lasts)
	all := b.count(1000)
	var names []string
	for i := range all {
		names = append(names, fmt.Sprintf("analysis-%04d", i))
	}
	if _, err := s.push(ctx, "Add analyses", outsideFiles(names, "{analysis: {queries: [due], interval: 10, units: seconds, numberOfJudgmentRuns: 100}}", w.URL)); err != nil {
		return err
	}
	if err := w.seen(ctx, all); err != nil { // each has measured once
		return err
	}
	pause(ctx, 20*time.Second) // for what follows so many deployments
	w.mu.Lock()
	w.late = nil
	w.mu.Unlock()
	disturbed := b.quiet.watch()
	with := s.load(ctx, lasts)
	w.mu.Lock()
	late := w.late
	w.mu.Unlock()
	by := disturbed()
	if want := int(lasts/(10*time.Second)) * all; len(late) < want*9/10 {
		return fmt.Errorf("%d measurements came in %s, and not %d", len(late), lasts, want)
	}
	b.results.add(by, figure{Name: fmt.Sprintf("%d analyses at once, a measurement after its time, p99", all), Value: late.at(.99), Unit: "ms", Goal: atMost(1000), Detail: late.String()})
	b.results.add(by, figure{Name: fmt.Sprintf("%d analyses at once, processor above the idle controller", all), Value: with - without, Unit: "% of a core", Goal: atMost(30),
		Detail: fmt.Sprintf("%.2f %% against %.2f %%, over %.0f s each", with, without, lasts.Seconds())})
	return nil
}

// seen waits until so many measurements came.
func (w *world) seen(ctx context.Context, count int) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	for {
		w.mu.Lock()
		came := len(w.late)
		w.mu.Unlock()
		if came >= count {
			return nil
		}
		pause(ctx, 100*time.Millisecond)
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%d of %d analyses measured: %w", came, count, err)
		}
	}
}
