package cluster_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"towpath/manifest"
)

// touch changes an object as somebody else.
func (b *bench) touch(name, value string) {
	b.t.Helper()
	_, err := b.kube.Client.Resource(configMaps).Namespace(b.namespace).Patch(b.t.Context(), name, types.MergePatchType, []byte(`{"data":{"touched":"`+value+`"}}`), metav1.PatchOptions{})
	ok(b.t, err)
}

// watched calls Watch, and returns a channel of its wakes.
func (b *bench) watched(keys ...manifest.Key) (wakes chan struct{}, stop func()) {
	b.t.Helper()
	wakes = make(chan struct{}, 1000)
	stop, err := b.Watch(b.t.Context(), b.id, keys, func() { wakes <- struct{}{} })
	ok(b.t, err)
	b.t.Cleanup(stop)
	return wakes, stop
}

func (b *bench) woken(wakes chan struct{}, why string) {
	b.t.Helper()
	select {
	case <-wakes:
	case <-time.After(time.Minute):
		b.t.Fatalf("not woken %s", why)
	}
}

func TestAChangeWakesWhoWaitsForItAndNobodyElse(t *testing.T) {
	b := setUp(t)
	b.applied(1, b.objects(settings))
	mine := b.id
	b.id.Target = "another"
	b.applied(1, b.objects(strings.ReplaceAll(settings, "name: settings", "name: theirs")))
	b.id = mine

	wakes, stop := b.watched(b.key("", "ConfigMap", "settings"))
	b.touch("theirs", "1")
	b.touch("settings", "1")
	b.woken(wakes, "by a change of its object")
	b.touch("theirs", "2")
	stop()
	if len(wakes) > 0 {
		t.Error("woken by what is there already, or by another target's object")
	}
	b.touch("settings", "2")
	again, _ := b.watched(b.key("", "ConfigMap", "settings"))
	b.touch("settings", "3")
	b.woken(again, "by a change after it watched again")
	if len(wakes) > 0 {
		t.Error("woken after stop")
	}
}

func TestManyListenersShareAWatch(t *testing.T) {
	b := setUp(t)
	b.applied(1, b.objects(settings))
	b.wire.reset()
	key := b.key("", "ConfigMap", "settings")
	var all []chan struct{}
	for range 20 {
		wakes, _ := b.watched(key)
		all = append(all, wakes)
	}
	if got := len(b.wire.sent()); got != 1 {
		t.Errorf("%d requests for 20 listeners: %v", got, b.wire.sent())
	}
	b.touch("settings", "1")
	for _, wakes := range all {
		b.woken(wakes, "though it listens")
	}
}

func TestABurstOfChangesWakesSeldom(t *testing.T) {
	b := setUp(t)
	b.applied(1, b.objects(settings))
	wakes, _ := b.watched(b.key("", "ConfigMap", "settings"))
	began := time.Now()
	for range 50 {
		b.touch("settings", time.Now().String())
	}
	b.woken(wakes, "by fifty changes")
	if most := int(time.Since(began)/(100*time.Millisecond)) + 2; len(wakes)+1 > most {
		t.Errorf("%d wakes, want %d at most", len(wakes)+1, most)
	}
}

func TestAWatchThatBreaksIsOpenedAgainAndWakes(t *testing.T) {
	for name, cut := range map[string]func(*cutter){
		"the connection breaks":                           (*cutter).cut,
		"the API server says that it has forgotten (410)": (*cutter).expire,
	} {
		t.Run(name, func(t *testing.T) {
			b := setUp(t)
			b.applied(1, b.objects(settings))
			c := &cutter{next: b.wire.next, opened: make(chan struct{}, 100)}
			b.wire.next = c
			wakes, _ := b.watched(b.key("", "ConfigMap", "settings"))
			<-c.opened
			c.refuse(true)
			cut(c)
			b.touch("settings", "unseen")
			c.refuse(false)
			b.woken(wakes, "once the watch is open again, as what happened meanwhile was not seen")
			b.touch("settings", "seen")
			b.woken(wakes, "by a change after it")
		})
	}
}

// cutter cuts watches.
type cutter struct {
	next   http.RoundTripper
	opened chan struct{}

	mu     sync.Mutex
	down   bool
	bodies []*cuttable
}

func (c *cutter) RoundTrip(request *http.Request) (*http.Response, error) {
	watch := request.URL.Query().Get("watch") != ""
	c.mu.Lock()
	down := c.down
	c.mu.Unlock()
	if watch && down {
		return nil, errors.New("connection refused")
	}
	response, err := c.next.RoundTrip(request)
	if err == nil && watch {
		read, write := io.Pipe()
		inner := response.Body
		body := &cuttable{ReadCloser: read, write: write, inner: inner}
		go func() {
			_, err := io.Copy(write, inner)
			write.CloseWithError(err)
		}()
		response.Body = body
		c.mu.Lock()
		c.bodies = append(c.bodies, body)
		c.mu.Unlock()
		c.opened <- struct{}{}
	}
	return response, err
}

func (c *cutter) refuse(down bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down = down
}

func (c *cutter) all() []*cuttable {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bodies
}

func (c *cutter) cut() {
	for _, body := range c.all() {
		body.write.CloseWithError(io.ErrUnexpectedEOF)
		_ = body.inner.Close()
	}
}

func (c *cutter) expire() {
	for _, body := range c.all() {
		_, _ = body.write.Write([]byte(`{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","status":"Failure","message":"too old resource version","reason":"Expired","code":410}}` + "\n"))
	}
	c.cut()
}

type cuttable struct {
	io.ReadCloser
	write *io.PipeWriter
	inner io.ReadCloser
}

func (b *cuttable) Close() error {
	_ = b.inner.Close()
	return b.ReadCloser.Close()
}

func TestAnOlderAPIServerIsWatchedToo(t *testing.T) {
	b := setUp(t)
	b.applied(1, b.objects(settings))
	b.wire.intercept(func(request *http.Request) (*http.Response, error) {
		if request.URL.Query().Has("sendInitialEvents") {
			return answer(request, http.StatusUnprocessableEntity, "Invalid", "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled", nil), nil
		}
		return nil, nil
	})
	wakes, _ := b.watched(b.key("", "ConfigMap", "settings"))
	b.touch("settings", "1")
	b.woken(wakes, "by a change")
}

func TestAWatchThatIsNotAllowedIsAFailure(t *testing.T) {
	b := setUp(t)
	b.wire.intercept(func(request *http.Request) (*http.Response, error) {
		if request.URL.Query().Has("watch") {
			return answer(request, http.StatusForbidden, "Forbidden", `configmaps is forbidden: User "agent" cannot watch resource "configmaps"`, nil), nil
		}
		return nil, nil
	})
	_, err := b.Watch(t.Context(), b.id, []manifest.Key{b.key("", "ConfigMap", "settings")}, func() {})
	if err == nil {
		t.Fatal("no error")
	}
	contains(t, err.Error(), `User "agent" cannot watch resource "configmaps"`)
}

func TestClosingEndsEverything(t *testing.T) {
	b := setUp(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	b.applied(1, b.objects(settings))
	c := b.client()
	stop, err := c.Watch(ctx, b.id, []manifest.Key{b.key("", "ConfigMap", "settings")}, func() {})
	ok(t, err)
	c.Close()
	c.Close()
	stop()
	stop()
	if _, err := c.Watch(ctx, b.id, []manifest.Key{b.key("", "ConfigMap", "settings")}, func() {}); err == nil {
		t.Error("a closed client watches")
	}
}
