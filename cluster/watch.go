package cluster

import (
	"context"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// Watch calls wake, not more often than each 100 ms, when one of the target's objects of the keys' kinds may have changed, until stop is called. It
// returns once any later change will be seen. Watches are shared: one for each kind, over all namespaces where that is allowed, else one for each
// namespace.
func (c *Client) Watch(ctx context.Context, id rollout.Identity, keys []manifest.Key, wake func()) (stop func(), err error) {
	waker := newWaker(wake)
	var leave []func()
	stop = func() {
		for _, l := range leave {
			l()
		}
		waker.stop()
	}
	for kind := range byKind(keys) {
		mapping, err := c.mapping(kind.Group, kind.Kind, "")
		if err != nil {
			stop()
			return nil, c.failure(kind, err)
		}
		namespace := orDefault(kind.Namespace)
		if mapping.Scope.Name() == meta.RESTScopeNameRoot {
			namespace = ""
		}
		l, err := c.watches.join(ctx, mapping.Resource, namespace, LaneLabel(id), waker)
		if err != nil {
			stop()
			return nil, c.failure(kind, err)
		}
		leave = append(leave, l)
	}
	return stop, nil
}

// wakeEvery is the least time between two calls of one waker.
const wakeEvery = 100 * time.Millisecond

// waker calls a function at once, and then at most once in each while.
type waker struct {
	call func()

	mu    sync.Mutex
	last  time.Time
	timer *time.Timer
	ended bool
}

func newWaker(call func()) *waker { return &waker{call: call} }

func (w *waker) wake() {
	w.mu.Lock()
	if w.ended || w.timer != nil {
		w.mu.Unlock()
		return
	}
	if wait := wakeEvery - time.Since(w.last); wait > 0 {
		w.timer = time.AfterFunc(wait, func() {
			w.mu.Lock()
			w.timer, w.last = nil, time.Now()
			ended := w.ended
			w.mu.Unlock()
			if !ended {
				w.call()
			}
		})
		w.mu.Unlock()
		return
	}
	w.last = time.Now()
	w.mu.Unlock()
	w.call()
}

func (w *waker) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	if w.timer != nil {
		w.timer.Stop()
	}
}

// place is what one shared watch sees.
type place struct {
	resource  schema.GroupVersionResource
	namespace string // "": all
}

// watches are the shared watches of one cluster.
type watches struct {
	client metadata.Interface
	log    *logrus.Entry
	linger time.Duration // how long a watch without listeners stays open for the next one

	mu     sync.Mutex
	open   map[place]*shared
	narrow map[schema.GroupVersionResource]bool // all namespaces may not be watched
	closed bool
	loops  sync.WaitGroup
}

func newWatches(client metadata.Interface, log *logrus.Entry) *watches {
	return &watches{client: client, log: log, linger: 10 * time.Second, open: map[place]*shared{}, narrow: map[schema.GroupVersionResource]bool{}}
}

// shared is one watch and who listens to it.
type shared struct {
	cancel    context.CancelFunc
	ready     chan struct{}     // closed when the first watch is open, or failed
	err       error             // of the first watch
	listeners map[*waker]string // → lane
	idle      *time.Timer
}

// join adds a listener for the objects of a lane, opening a watch where there is none yet.
func (ws *watches) join(ctx context.Context, resource schema.GroupVersionResource, namespace, lane string, w *waker) (leave func(), err error) {
	ws.mu.Lock()
	wide := !ws.narrow[resource]
	ws.mu.Unlock()
	if wide {
		leave, err = ws.joinAt(ctx, place{resource, ""}, lane, w)
		if !apierrors.IsForbidden(err) || namespace == "" {
			return leave, err
		}
		ws.mu.Lock()
		ws.narrow[resource] = true
		ws.mu.Unlock()
	}
	return ws.joinAt(ctx, place{resource, namespace}, lane, w)
}

func (ws *watches) joinAt(ctx context.Context, at place, lane string, w *waker) (leave func(), err error) {
	ws.mu.Lock()
	if ws.closed {
		ws.mu.Unlock()
		return nil, context.Canceled
	}
	s := ws.open[at]
	if s == nil {
		inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
		s = &shared{cancel: cancel, ready: make(chan struct{}), listeners: map[*waker]string{}}
		ws.open[at] = s
		ws.loops.Go(func() { ws.run(inner, at, s) })
	}
	if s.idle != nil {
		s.idle.Stop()
		s.idle = nil
	}
	s.listeners[w] = lane
	ws.mu.Unlock()
	leave = func() { ws.leave(at, s, w) }
	select {
	case <-s.ready:
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
	if s.err != nil {
		leave()
		return nil, s.err
	}
	return leave, nil
}

func (ws *watches) leave(at place, s *shared, w *waker) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	delete(s.listeners, w)
	if len(s.listeners) > 0 || s.idle != nil {
		return
	}
	s.idle = time.AfterFunc(ws.linger, func() {
		ws.mu.Lock()
		defer ws.mu.Unlock()
		if len(s.listeners) == 0 {
			s.cancel()
			if ws.open[at] == s {
				delete(ws.open, at)
			}
		}
	})
}

// run keeps a watch open until it is cancelled. Each time it had to be opened again every listener is woken: what happened meanwhile was not seen.
func (ws *watches) run(ctx context.Context, at place, s *shared) {
	first := true
	for pause := 100 * time.Millisecond; ctx.Err() == nil; {
		w, err := ws.client.Resource(at.resource).Namespace(at.namespace).Watch(ctx, metav1.ListOptions{LabelSelector: LabelLane, AllowWatchBookmarks: true})
		if err != nil && first {
			ws.mu.Lock()
			if ws.open[at] == s {
				delete(ws.open, at) // the next one tries anew
			}
			s.err = err
			ws.mu.Unlock()
			close(s.ready)
			return
		}
		if err == nil {
			if first {
				close(s.ready)
			} else {
				ws.tell(s, "")
			}
			first, pause = false, 100*time.Millisecond
			ws.listen(ctx, w, s)
			continue
		}
		ws.log.WithError(err).WithField("resource", at.resource.Resource).Debug("a watch could not be opened again; trying again")
		select {
		case <-ctx.Done():
		case <-time.After(pause):
			pause = min(2*pause, 10*time.Second)
		}
	}
}

// listen tells the listeners what happens until the watch ends.
func (ws *watches) listen(ctx context.Context, w watch.Interface, s *shared) {
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case event, more := <-w.ResultChan():
			if !more || event.Type == watch.Error {
				return
			}
			if event.Type == watch.Bookmark {
				continue
			}
			if object, err := meta.Accessor(event.Object); err == nil {
				ws.tell(s, object.GetLabels()[LabelLane])
			}
		}
	}
}

// tell wakes those who listen to a lane; "" means all.
func (ws *watches) tell(s *shared, lane string) {
	ws.mu.Lock()
	var awake []*waker
	for w, mine := range s.listeners {
		if lane == "" || mine == lane {
			awake = append(awake, w)
		}
	}
	ws.mu.Unlock()
	for _, w := range awake {
		w.wake()
	}
}

func (ws *watches) close() {
	ws.mu.Lock()
	ws.closed = true
	for _, s := range ws.open {
		s.cancel()
	}
	ws.mu.Unlock()
	ws.loops.Wait()
}
