package cluster

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// Watch calls wake, not more often than each 100 ms, when one of the target's objects of the keys' kinds may have changed, or one of the pods of a
// revision got into trouble, until stop is called; stop waits for a call under way. Watch returns once any later change will be seen. Watches are shared:
// one for each kind, over all namespaces where that is allowed, else one for each namespace; they are open while somebody listens, and a while longer.
// Deployment objects, which are not the target's before they are taken over, are watched each by its name.
// An event proves nothing; it may be late, come twice, or stand for a gap in which events were lost.
func (c *Client) Watch(ctx context.Context, id rollout.Identity, keys []manifest.Key, wake func()) (stop func(), err error) {
	listener := newWaker(wake)
	var leave []func()
	stop = func() {
		for _, l := range leave {
			l()
		}
		listener.stop()
	}
	watched := byKind(slices.DeleteFunc(slices.Clone(keys), namesDeployment))
	for _, key := range keys {
		if namesDeployment(key) {
			watched[key] = nil
		}
	}
	for kind := range byKind(keys) {
		if kind.Group == replicaSetKind.Group && kind.Kind == replicaSetKind.Kind {
			watched[manifest.Key{Kind: podKind.Kind, Namespace: kind.Namespace}] = nil
		}
	}
	var mu sync.Mutex // of leave
	var jobs []job
	for kind := range watched {
		jobs = append(jobs, func() ([]rollout.Live, error) {
			l, err := c.join(ctx, kind, LaneLabel(id), listener)
			switch {
			case err == nil:
				mu.Lock()
				leave = append(leave, l)
				mu.Unlock()
			case kind.Kind == podKind.Kind && apierrors.IsForbidden(err): // people then read of trouble a little later
			default:
				return nil, c.failure(kind, err)
			}
			return nil, nil
		})
	}
	if _, failure := c.all(jobs); failure != nil {
		stop()
		return nil, failure
	}
	return stop, nil
}

func namesDeployment(key manifest.Key) bool { return key.Group == "apps" && key.Kind == "Deployment" }

// join listens to the objects of a lane of one kind and namespace, or to one object that the key names, whosever it is.
func (c *Client) join(ctx context.Context, kind manifest.Key, lane string, listener *waker) (leave func(), err error) {
	ctx, cancel := c.within(ctx)
	defer cancel()
	mapping, err := c.kinds.mapping(ctx, kind, "")
	if err != nil {
		return nil, err
	}
	namespace := orDefault(kind.Namespace)
	if mapping.Scope.Name() == meta.RESTScopeNameRoot {
		namespace = ""
	}
	if kind.Name != "" {
		return c.watches.joinAt(ctx, place{mapping.Resource, namespace, kind.Name}, lane, listener)
	}
	return c.watches.join(ctx, mapping.Resource, namespace, lane, listener)
}

// wakeEvery is the least time between two calls of one waker.
const wakeEvery = 100 * time.Millisecond

// waker calls a function when it is woken: at once, then at most once in each while.
type waker struct {
	signal chan struct{} // holds one: wakes while the function runs, or may not run yet, are one
	ended  chan struct{}
	once   sync.Once
	loop   sync.WaitGroup
}

func newWaker(call func()) *waker {
	w := &waker{signal: make(chan struct{}, 1), ended: make(chan struct{})}
	w.loop.Go(func() {
		for {
			select {
			case <-w.ended:
				return
			case <-w.signal:
			}
			call()
			select {
			case <-w.ended:
				return
			case <-time.After(wakeEvery):
			}
		}
	})
	return w
}

func (w *waker) wake() {
	select {
	case w.signal <- struct{}{}:
	default:
	}
}

func (w *waker) stop() {
	w.once.Do(func() { close(w.ended) })
	w.loop.Wait()
}

// place is what one shared watch sees.
type place struct {
	resource  schema.GroupVersionResource
	namespace string // "": all
	name      string // of the one object; "": those of lanes
}

var pods = schema.GroupVersionResource{Version: "v1", Resource: "pods"}

// watches are the shared watches of one cluster.
type watches struct {
	names   metadata.Interface // of all kinds but pods only names and labels are watched
	objects dynamic.Interface
	log     *logrus.Entry
	linger  time.Duration // how long a watch without listeners stays open for the next one
	prints  *prints

	mu     sync.Mutex
	open   map[place]*shared
	narrow map[schema.GroupVersionResource]bool // all namespaces may not be watched
	whole  bool                                 // the API server cannot leave out what is there already
	closed bool
	loops  sync.WaitGroup
}

func newWatches(names metadata.Interface, objects dynamic.Interface, known *prints, log *logrus.Entry) *watches {
	return &watches{names: names, objects: objects, log: log, linger: 10 * time.Second, prints: known, open: map[place]*shared{}, narrow: map[schema.GroupVersionResource]bool{}}
}

// shared is one watch and who listens to it.
type shared struct {
	cancel    context.CancelFunc
	ready     chan struct{}     // closed when the first watch is open, or failed
	err       error             // of the first watch
	listeners map[*waker]string // → lane
	followers map[*follower]bool
	version   string // of the last event: where a watch that broke off goes on; "": nowhere
	idle      *time.Timer
	troubles  map[types.UID]trouble // of pods, by their UID
}

// trouble of a pod.
type trouble struct {
	owner types.UID
	why   string
}

// join adds a listener for the objects of a lane, opening a watch where there is none yet.
func (ws *watches) join(ctx context.Context, resource schema.GroupVersionResource, namespace, lane string, w *waker) (leave func(), err error) {
	_, leave, err = ws.joinWide(ctx, resource, namespace, lane, w)
	return leave, err
}

// joinWide is join, and says where.
func (ws *watches) joinWide(ctx context.Context, resource schema.GroupVersionResource, namespace, lane string, w *waker) (at place, leave func(), err error) {
	ws.mu.Lock()
	wide := !ws.narrow[resource]
	ws.mu.Unlock()
	if wide {
		at = place{resource, "", ""}
		leave, err = ws.joinAt(ctx, at, lane, w)
		if !apierrors.IsForbidden(err) || namespace == "" {
			return at, leave, err
		}
		ws.mu.Lock()
		ws.narrow[resource] = true
		ws.mu.Unlock()
	}
	at = place{resource, namespace, ""}
	leave, err = ws.joinAt(ctx, at, lane, w)
	return at, leave, err
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
		s = &shared{cancel: cancel, ready: make(chan struct{}), listeners: map[*waker]string{}, followers: map[*follower]bool{}, troubles: map[types.UID]trouble{}}
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
	if len(s.listeners) > 0 || s.idle != nil || ws.open[at] != s {
		return
	}
	s.idle = time.AfterFunc(ws.linger, func() {
		ws.mu.Lock()
		defer ws.mu.Unlock()
		if len(s.listeners) == 0 && ws.open[at] == s {
			s.cancel()
			delete(ws.open, at)
		}
	})
}

// run keeps a watch open until it is cancelled. Each time it had to be opened again every listener is woken: what happened meanwhile was not seen.
func (ws *watches) run(ctx context.Context, at place, s *shared) {
	defer s.cancel()
	first := true
	for pause := 100 * time.Millisecond; ctx.Err() == nil; {
		w, resumed, err := ws.resume(ctx, at, s)
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
			if !first && !resumed {
				ws.catchUpAll(ctx, at, s)
			}
			first = false
			if ws.listen(ctx, w, at, s) {
				pause = 100 * time.Millisecond
			}
		} else {
			ws.log.WithError(err).WithField("resource", at.resource.Resource).Debug("a watch could not be opened again; trying again")
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
			pause = min(2*pause, 10*time.Second)
		}
	}
}

// resume opens a watch where the last one broke off, so that nothing was missed, or, where the cluster no longer knows that, from now on.
func (ws *watches) resume(ctx context.Context, at place, s *shared) (w watch.Interface, resumed bool, err error) {
	ws.mu.Lock()
	version := s.version
	ws.mu.Unlock()
	if version == "" || at.name != "" || at.resource == pods {
		w, err = ws.watch(ctx, at)
		return w, false, err
	}
	w, err = ws.begin(ctx, at, metav1.ListOptions{LabelSelector: LabelLane, ResourceVersion: version, AllowWatchBookmarks: true})
	if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
		ws.forgetVersion(s)
		w, err = ws.watch(ctx, at)
		return w, false, err
	}
	return w, true, err
}

func (ws *watches) forgetVersion(s *shared) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	s.version = ""
}

// watch opens a watch of what happens from now on.
func (ws *watches) watch(ctx context.Context, at place) (watch.Interface, error) {
	ws.mu.Lock()
	whole := ws.whole
	ws.mu.Unlock()
	none := false
	options := metav1.ListOptions{LabelSelector: LabelLane, AllowWatchBookmarks: true}
	if at.name != "" {
		options = metav1.ListOptions{FieldSelector: "metadata.name=" + at.name}
	}
	if !whole {
		options.SendInitialEvents, options.ResourceVersionMatch = &none, metav1.ResourceVersionMatchNotOlderThan
	}
	w, err := ws.begin(ctx, at, options)
	if !whole && (apierrors.IsInvalid(err) || apierrors.IsBadRequest(err)) { // before Kubernetes 1.32: it begins with all that is there
		options.SendInitialEvents, options.ResourceVersionMatch = nil, ""
		if w, err = ws.begin(ctx, at, options); err == nil {
			ws.mu.Lock()
			ws.whole = true
			ws.mu.Unlock()
		}
	}
	return w, err
}

func (ws *watches) begin(ctx context.Context, at place, options metav1.ListOptions) (watch.Interface, error) {
	if at.resource == pods {
		return ws.objects.Resource(at.resource).Namespace(at.namespace).Watch(ctx, options)
	}
	return ws.names.Resource(at.resource).Namespace(at.namespace).Watch(ctx, options)
}

// listen tells the listeners what happens until the watch ends, and reports whether anything did.
func (ws *watches) listen(ctx context.Context, w watch.Interface, at place, s *shared) (moved bool) {
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return moved
		case event, more := <-w.ResultChan():
			if !more {
				return moved
			}
			if event.Type == watch.Error {
				ws.forgetVersion(s) // most often it says that it is too old to go on from
				return moved
			}
			moved = true
			object, err := meta.Accessor(event.Object)
			if err != nil {
				continue
			}
			ws.mu.Lock()
			s.version = object.GetResourceVersion()
			ws.mu.Unlock()
			if event.Type == watch.Bookmark {
				continue
			}
			ws.tellMoved(s, event, object)
			switch {
			case at.name != "":
				ws.tell(s, "")
			case at.resource != pods || ws.troubles(s, event):
				ws.tell(s, object.GetLabels()[LabelLane])
			}
		}
	}
}

// troubles notes the trouble of a pod, and reports whether it is new. Of pods nothing else wakes: what they do shows in what owns them.
func (ws *watches) troubles(s *shared, event watch.Event) bool {
	pod, ok := event.Object.(*unstructured.Unstructured)
	if !ok {
		return false
	}
	why := ""
	if event.Type != watch.Deleted {
		why = podTrouble(pod.Object)
	}
	owners := pod.GetOwnerReferences()
	ws.mu.Lock()
	defer ws.mu.Unlock()
	before := s.troubles[pod.GetUID()].why
	if why == "" || len(owners) == 0 {
		delete(s.troubles, pod.GetUID())
		return false
	}
	s.troubles[pod.GetUID()] = trouble{owners[0].UID, why}
	return why != before
}

// troubled reports whether any pod of an owner is known to be in trouble.
func (ws *watches) troubled(owner types.UID) bool {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for at, s := range ws.open {
		if at.resource != pods {
			continue
		}
		for _, t := range s.troubles {
			if t.owner == owner {
				return true
			}
		}
	}
	return false
}

// follow joins for a follower, and catches it up.
func (ws *watches) follow(ctx context.Context, resource schema.GroupVersionResource, namespace string, idle *waker, f *follower) (at place, leave func(), err error) {
	if at, leave, err = ws.joinWide(ctx, resource, namespace, noLane, idle); err != nil {
		return at, leave, err
	}
	ws.mu.Lock()
	if s := ws.open[at]; s != nil {
		s.followers[f] = true
	}
	ws.mu.Unlock()
	if err = ws.catchUp(ctx, at, f); err != nil {
		ws.unfollow(at, f)
		leave()
	}
	return at, leave, err
}

// noLane is the lane of listeners that no object has.
const noLane = "-"

func (ws *watches) unfollow(at place, f *follower) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if s := ws.open[at]; s != nil {
		delete(s.followers, f)
	}
}

// catchUpAll catches up the followers of a watch that missed something. Where the cluster does not answer, the next opening does so.
func (ws *watches) catchUpAll(ctx context.Context, at place, s *shared) {
	ws.mu.Lock()
	var followers []*follower
	for f := range s.followers {
		followers = append(followers, f)
	}
	ws.mu.Unlock()
	for _, f := range followers {
		if err := ws.catchUp(ctx, at, f); err != nil {
			ws.log.WithError(err).WithField("resource", at.resource.Resource).Warn("what changed while no watch was open could not be listed; drift is told later")
		}
	}
}

// tell wakes those who listen to a lane; "" means all.
func (ws *watches) tell(s *shared, lane string) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for w, mine := range s.listeners {
		if lane == "" || mine == lane {
			w.wake()
		}
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
