// Command applylimit measures how many objects a second a kube-apiserver accepts. It is the physical limit that a sync is compared with: prepared bodies,
// raw HTTP, no client-side rate limit, no renders, no health checks.
//
//	applylimit -kubeconfig FILE -apps 500 -workers 1,8,32 [-pids apiserver=PID,etcd=PID]
//	applylimit -dump DIR -apps 500        writes DIR/app-0000/app.yaml … for a Git repository or kubectl
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "applylimit:", err)
		os.Exit(1)
	}
}

type options struct {
	kubeconfig, namespace, accept, dump string
	apps, pods, revision                int
	workers                             []int
	phases                              []string
	settle                              time.Duration
	processes                           []process
}

func parse(args []string) (o options, err error) {
	flags := flag.NewFlagSet("applylimit", flag.ContinueOnError)
	flags.StringVar(&o.kubeconfig, "kubeconfig", os.Getenv("KUBECONFIG"), "of the cluster")
	flags.IntVar(&o.apps, "apps", 500, "apps of five objects")
	flags.IntVar(&o.pods, "replicas", 0, "replicas of each Deployment object")
	workers := flags.String("workers", "1,8,32", "numbers of requests under way at once, to be tried one after the other")
	pids := flags.String("pids", "", "name=PID,… of processes whose CPU time is reported")
	flags.StringVar(&o.namespace, "namespace", "limit", "prefix of the namespaces")
	flags.StringVar(&o.accept, "accept", "application/json", "Accept header; application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1 asks for small answers")
	flags.DurationVar(&o.settle, "settle", 4*time.Second, "pause between phases, for the cluster's own controllers")
	phases := flags.String("phases", "create,noop,dryrun,change,get", "of these, and post: a plain create, only in a namespace where nothing is yet")
	flags.StringVar(&o.dump, "dump", "", "write the apps' YAML into this folder and end")
	flags.IntVar(&o.revision, "rev", 1, "revision in the YAML that is written")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	for text := range strings.SplitSeq(*workers, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return o, fmt.Errorf("-workers %s: want numbers of at least 1, as in 1,8,32", *workers)
		}
		o.workers = append(o.workers, n)
	}
	o.phases = strings.Split(*phases, ",")
	for _, phase := range o.phases {
		if !slices.Contains([]string{"create", "noop", "dryrun", "change", "get", "post"}, phase) {
			return o, fmt.Errorf("-phases: there is no phase %q", phase)
		}
	}
	if *pids != "" {
		for text := range strings.SplitSeq(*pids, ",") {
			name, pid, found := strings.Cut(text, "=")
			if !found {
				return o, fmt.Errorf("-pids %s: want name=PID, as in apiserver=4711", *pids)
			}
			o.processes = append(o.processes, process{name, pid})
		}
	}
	return o, nil
}

func run(ctx context.Context, args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	if o.dump != "" {
		return dump(o)
	}
	config, err := clientcmd.BuildConfigFromFlags("", o.kubeconfig)
	if err != nil {
		return err
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return err
	}
	s := &server{client: client, host: strings.TrimSuffix(config.Host, "/"), accept: o.accept}
	fmt.Print("workers phase   objects seconds objects/s p50ms p99ms client-cpu-s")
	for _, p := range o.processes {
		fmt.Printf(" %s-cpu-s %s-ms/obj", p.name, p.name)
	}
	fmt.Println(" cores-busy cores-elsewhere")
	for _, workers := range o.workers {
		if err := s.measure(ctx, o, workers); err != nil {
			return err
		}
	}
	return nil
}

func dump(o options) error {
	for i := range o.apps {
		dir := filepath.Join(o.dump, fmt.Sprintf("app-%04d", i))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "app.yaml"), []byte(text(o.namespace, i, o.revision, o.pods)), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// measure tries each phase with so many requests under way at once, in a namespace of its own.
func (s *server) measure(ctx context.Context, o options, workers int) error {
	namespace := fmt.Sprintf("%s-w%d", o.namespace, workers)
	body := fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":%q}}`, namespace)
	if err := s.send(ctx, http.MethodPatch, object{"/api/v1/namespaces/" + namespace, body}, "?fieldManager=applylimit"); err != nil {
		return err
	}
	first, err := objects(namespace, o.apps, 1, o.pods)
	if err != nil {
		return err
	}
	second, err := objects(namespace, o.apps, 2, o.pods)
	if err != nil {
		return err
	}
	for _, phase := range o.phases {
		set, method, query := first, http.MethodPatch, "?fieldManager=applylimit&force=true"
		switch phase {
		case "change":
			set = second
		case "dryrun":
			query += "&dryRun=All"
		case "get":
			method, query = http.MethodGet, ""
		case "post":
			method, query = http.MethodPost, "?fieldManager=applylimit"
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(o.settle):
		}
		before := take(o.processes)
		took, err := s.all(ctx, set, method, query, workers)
		if err != nil {
			return err
		}
		report(workers, phase, took, before, take(o.processes))
	}
	return nil
}

// all sends each object once, and returns how long each took, shortest first.
func (s *server) all(ctx context.Context, set []object, method, query string, workers int) ([]time.Duration, error) {
	took, errs := make([]time.Duration, len(set)), make([]error, workers)
	var next atomic.Int64
	var running sync.WaitGroup
	for worker := range workers {
		running.Go(func() {
			for errs[worker] == nil {
				i := int(next.Add(1)) - 1
				if i >= len(set) {
					return
				}
				began := time.Now()
				errs[worker] = s.send(ctx, method, set[i], query)
				took[i] = time.Since(began)
			}
		})
	}
	running.Wait()
	slices.Sort(took)
	return took, errors.Join(errs...)
}

func report(workers int, phase string, took []time.Duration, before, after sample) {
	ms := func(share float64) float64 {
		return float64(took[int(share*float64(len(took)-1))].Microseconds()) / 1000
	}
	seconds, count := after.at.Sub(before.at).Seconds(), float64(len(took))
	known := after.self - before.self
	fmt.Printf("%7d %-7s %7d %7.2f %9.0f %5.1f %5.1f %12.2f", workers, phase, len(took), seconds, count/seconds, ms(.5), ms(.99), known)
	for i, p := range after.processes {
		spent := after.others[i] - before.others[i]
		known += spent
		fmt.Printf(" %*.2f %*.2f", len(p.name)+6, spent, len(p.name)+7, spent*1000/count)
	}
	fmt.Printf(" %10.2f %15.2f\n", (after.busy-before.busy)/seconds, (after.busy-before.busy-known)/seconds)
}

// server is the API server under test.
type server struct {
	client       *http.Client
	host, accept string
}

func (s *server) send(ctx context.Context, method string, o object, query string) error {
	path, kind := o.path, "application/apply-patch+yaml"
	if method == http.MethodPost {
		path, kind = path[:strings.LastIndexByte(path, '/')], "application/json"
	}
	request, err := http.NewRequestWithContext(ctx, method, s.host+path+query, bytes.NewReader(o.body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", kind)
	request.Header.Set("Accept", s.accept)
	response, err := s.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode >= http.StatusMultipleChoices {
		answer, _ := io.ReadAll(io.LimitReader(response.Body, 4096)) // it is the failure that matters
		return fmt.Errorf("%s %s: %s: %s", method, path, response.Status, answer)
	}
	_, err = io.Copy(io.Discard, response.Body)
	return err
}
