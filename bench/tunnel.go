package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"towpath/internal/testkit/faultproxy"
)

const (
	bodySize = 100 << 20
	fast     = 100e6 / 8 // a link of 100 Mbit/s, in bytes a second
)

// tunnel is what requests cost through hub and agent against the same ones sent directly, in turns: client and hub are in this process, as in a
// controller, the agent and an HTTPS server are processes of their own.
func tunnel(ctx context.Context, b *bench) (err error) {
	r, err := b.relay()
	defer func() { err = errors.Join(err, r.close()) }()
	if err != nil {
		return err
	}
	backend, stop, err := r.server()
	if err != nil {
		return err
	}
	defer stop()
	agent, err := r.agent(ctx, "near", r.address, backend)
	if err != nil {
		return err
	}
	defer agent.Kill()
	direct := &way{r.trusting(), backend}
	through := &way{&http.Client{Transport: r.hub.Transport("bench", "near")}, "http://cluster"}
	for _, w := range []*way{direct, through} { // connections are made, code is warm
		if _, err := w.inSequence(ctx, 500); err != nil {
			return err
		}
	}

	disturbed := b.quiet.watch()
	var plain, tunnelled samples
	for range 10 {
		for w, all := range map[*way]*samples{direct: &plain, through: &tunnelled} {
			took, err := w.inSequence(ctx, b.count(500))
			if err != nil {
				return err
			}
			*all = append(*all, took...)
		}
	}
	// At most 4 times as long, or 0.2 ms longer.
	b.results.add(disturbed(), figure{Name: "1 KB GET through the tunnel, p50, direct = 1", Value: tunnelled.at(.5) / plain.at(.5), Goal: atMost(max(4, 1+0.2/plain.at(.5))),
		Detail: fmt.Sprintf("direct %.3f ms, tunnelled %.3f ms", plain.at(.5), tunnelled.at(.5))})

	disturbed = b.quiet.watch()
	ratio, detail, err := inTurns(5, func(w *way) (float64, error) { return w.rate(ctx, 32, time.Duration(b.count(2000))*time.Millisecond) }, direct, through)
	if err != nil {
		return err
	}
	b.results.add(disturbed(), figure{Name: "requests a second, 32 workers, direct = 1", Value: ratio, Goal: atLeast(0.45), Detail: detail + " /s"})

	for _, d := range []struct {
		name, method string
		least        float64
	}{{"down", http.MethodGet, 0.5}, {"up", http.MethodPost, 0.38}} {
		disturbed = b.quiet.watch()
		ratio, detail, err := inTurns(5, func(w *way) (float64, error) { return w.bytes(ctx, d.method) }, direct, through)
		if err != nil {
			return err
		}
		b.results.add(disturbed(), figure{Name: "100 MB body " + d.name + ", bytes a second, direct = 1", Value: ratio, Goal: atLeast(d.least), Detail: detail + " MB/s"})
	}

	disturbed = b.quiet.watch()
	idle := kilobytes("/proc/"+strconv.Itoa(agent.PID())+"/status", "VmRSS:") / 1024
	watching, leave := context.WithCancel(ctx)
	defer leave()
	watches := b.count(1000)
	if err := through.watch(watching, watches); err != nil {
		return err
	}
	b.results.add(disturbed(), figure{Name: fmt.Sprintf("agent with %d watches, RSS", watches), Value: kilobytes("/proc/"+strconv.Itoa(agent.PID())+"/status", "VmRSS:") / 1024, Unit: "MiB", Goal: atMost(64),
		Detail: fmt.Sprintf("after what came before: %.3g without them", idle)})
	leave()
	return b.narrow(ctx, r, backend)
}

// narrow is what small requests wait while a body fills the link between agent and hub.
func (b *bench) narrow(ctx context.Context, r *relay, backend string) error {
	link, err := faultproxy.New(r.address, faultproxy.Link{Rate: fast})
	if err != nil {
		return err
	}
	defer link.Close()
	agent, err := r.agent(ctx, "far", link.Address(), backend)
	if err != nil {
		return err
	}
	defer agent.Kill()
	through := &way{&http.Client{Transport: r.hub.Transport("bench", "far")}, "http://cluster"}
	if _, err := through.inSequence(ctx, 100); err != nil {
		return err
	}
	for name, method := range map[string]string{"down": http.MethodGet, "up": http.MethodPost} {
		disturbed := b.quiet.watch()
		full, empty := context.WithCancel(ctx)
		var flowing sync.WaitGroup
		flowing.Go(func() {
			for full.Err() == nil {
				_, _ = through.bytes(full, method) // ended by empty
			}
		})
		pause(ctx, time.Second)
		took, err := through.inSequence(ctx, b.count(500))
		empty()
		flowing.Wait()
		if err != nil {
			return err
		}
		b.results.add(disturbed(), figure{Name: "1 KB GET beside a body " + name + " that fills 100 Mbit/s, p99", Value: took.at(.99), Unit: "ms", Goal: atMost(30), Detail: fmt.Sprintf("p50 %.3g ms", took.at(.5))})
	}
	return ctx.Err()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// way is how the server is reached.
type way struct {
	client *http.Client
	base   string
}

// inSequence sends one small request after the other.
func (w *way) inSequence(ctx context.Context, count int) (samples, error) {
	var took samples
	for range count {
		began := time.Now()
		if _, err := fetch(ctx, w.client, http.MethodGet, w.base+"/?bytes=1000", nil); err != nil {
			return nil, err
		}
		took = append(took, time.Since(began))
	}
	return took, nil
}

// rate is how many small requests workers send in a second.
func (w *way) rate(ctx context.Context, workers int, lasts time.Duration) (float64, error) {
	var done atomic.Int64
	failed := make(chan error, workers)
	began := time.Now()
	for range workers {
		go func() {
			for time.Since(began) < lasts {
				if _, err := fetch(ctx, w.client, http.MethodGet, w.base+"/?bytes=1000", nil); err != nil {
					failed <- err
					return
				}
				done.Add(1)
			}
			failed <- nil
		}()
	}
	var err error
	for range workers {
		err = errors.Join(err, <-failed)
	}
	return float64(done.Load()) / time.Since(began).Seconds(), err
}

// bytes is how many megabytes of a body go in a second.
func (w *way) bytes(ctx context.Context, method string) (float64, error) {
	var body io.Reader
	to := w.base + fmt.Sprint("/?bytes=", bodySize)
	if method == http.MethodPost {
		to, body = w.base+"/upload", io.LimitReader(zeros{}, bodySize)
	}
	began := time.Now()
	n, err := fetch(ctx, w.client, method, to, body)
	if err == nil && method == http.MethodGet && n != bodySize {
		err = fmt.Errorf("%d bytes of %d", n, bodySize)
	}
	return bodySize / 1e6 / time.Since(began).Seconds(), err
}

// watch opens watches that last as long as ctx.
func (w *way) watch(ctx context.Context, count int) error {
	for range count {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, w.base+"/watch", nil)
		if err != nil {
			return err
		}
		if _, err := w.client.Do(request); err != nil { //nolint:bodyclose // it lasts as long as ctx
			return err
		}
	}
	return nil
}

// inTurns measures both ways round after round, and divides the medians.
func inTurns(rounds int, measure func(*way) (float64, error), direct, through *way) (ratio float64, detail string, err error) {
	values := map[*way][]float64{}
	for range rounds {
		for _, w := range []*way{direct, through} {
			value, err := measure(w)
			if err != nil {
				return 0, "", err
			}
			values[w] = append(values[w], value)
		}
	}
	median := func(w *way) float64 {
		slices.Sort(values[w])
		return values[w][rounds/2]
	}
	return median(through) / median(direct), strings.TrimSpace(fmt.Sprintf("direct %.4g, tunnelled %.4g", median(direct), median(through))), nil
}
