package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"towpath/internal/testkit/routers"
)

// stepsFile is a canary in five shares, each of which is raised, proved ready and lowered before the next.
const stepsFile = `application: %s
targets: {prod: {account: prod, namespace: ` + appsNamespace + `, strategy: canary}}
manifests: [{path: app.yaml}]
strategies: {canary: {canary: {steps: [{setWeight: {weight: 20}}, {setWeight: {weight: 40}}, {setWeight: {weight: 60}}, {setWeight: {weight: 80}}, {setWeight: {weight: 100}}]}}}
`

// steps is how soon after the last pod of a step is ready the next effect is sent: on a quiet controller, and while 30 changes a second of other targets'
// objects come in.
func steps(ctx context.Context, b *bench) error {
	s, err := b.appsSite(ctx)
	if err != nil {
		return err
	}
	client, err := s.client()
	if err != nil {
		return err
	}
	pods := stepping{"steps", "", "replicasets", watchReady(ctx, client, "steps")}
	defer pods.ready.stop()
	rollouts := b.count(20)
	if _, err := s.rollSteps(ctx, pods, 0); err != nil { // the first is no canary
		return err
	}
	disturbed := b.quiet.watch()
	took, err := s.manySteps(ctx, pods, 1, rollouts)
	if err != nil {
		return err
	}
	by := disturbed()
	what := "last pod of a canary's step ready to next effect sent"
	b.results.add(by, figure{Name: what + ", p50", Value: took.at(.5), Unit: "ms", Goal: atMost(150), Detail: took.String()})
	b.results.add(by, figure{Name: what + ", p95", Value: took.at(.95), Unit: "ms", Goal: atMost(400)})

	if err := b.routed(ctx, s, client, rollouts); err != nil {
		return err
	}
	busy, err := b.busy(ctx, s, client)
	if err != nil {
		return err
	}
	defer busy()
	disturbed = b.quiet.watch()
	if took, err = s.manySteps(ctx, pods, rollouts+1, rollouts); err != nil {
		return err
	}
	b.results.add(disturbed(), figure{Name: what + ", while 30 events a second come in, p95", Value: took.at(.95), Unit: "ms", Goal: atMost(250), Detail: took.String()})
	return nil
}

// stepping is an application that is rolled out in steps, and what its effects are.
type stepping struct {
	name    string
	traffic string // what more the file says
	effects string // resource
	ready   *readiness
}

// routed is how soon after the last pod of a canary is ready its first share of traffic is set; the others follow without pods.
func (b *bench) routed(ctx context.Context, s *site, client *kubernetes.Clientset, rollouts int) error {
	if err := routers.Install(ctx, s.cluster.Kubeconfig); err != nil {
		return err
	}
	routed := stepping{"routed", "trafficManagement: [{smi: [{rootServiceName: routed}]}]\n", "trafficsplits", watchReady(ctx, client, "routed")}
	defer routed.ready.stop()
	if _, err := s.rollSteps(ctx, routed, 0); err != nil { // the first is no canary
		return err
	}
	disturbed := b.quiet.watch()
	took, err := s.manySteps(ctx, routed, 1, rollouts)
	if err != nil {
		return err
	}
	by := disturbed()
	const what = "last pod of a canary ready to its share of traffic set"
	b.results.add(by, figure{Name: what + ", p50", Value: took.at(.5), Unit: "ms", Goal: atMost(200), Detail: took.String()})
	b.results.add(by, figure{Name: what + ", p95", Value: took.at(.95), Unit: "ms", Goal: atMost(500)})
	return nil
}

func (s *site) manySteps(ctx context.Context, of stepping, from, count int) (took samples, err error) {
	for n := from; n < from+count; n++ {
		some, err := s.rollSteps(ctx, of, n)
		if err != nil {
			return nil, err
		}
		took = append(took, some...)
	}
	if len(took) == 0 {
		return nil, fmt.Errorf("no step of %d rollouts was seen", count)
	}
	return took, nil
}

// rollSteps rolls one canary out and returns, for each step, how long after the last pod became ready the next effect was sent.
func (s *site) rollSteps(ctx context.Context, of stepping, n int) (took samples, err error) {
	if err := s.audit.skip(); err != nil {
		return nil, err
	}
	of.ready.forget()
	text := strings.Replace(fmt.Sprintf(threePods, of.name, appsNamespace, n), "replicas: 3", "replicas: 5", 1)
	if of.traffic != "" {
		text += fmt.Sprintf("\n---\napiVersion: v1\nkind: Service\nmetadata: {name: %[1]s, namespace: %[2]s}\nspec: {selector: {app: %[1]s}, ports: [{port: 80}]}\n", of.name, appsNamespace)
	}
	sent, err := s.push(ctx, "Change the image", map[string]string{of.name + "/towpath.yaml": fmt.Sprintf(stepsFile, of.name) + of.traffic, of.name + "/app.yaml": text})
	if err != nil {
		return nil, err
	}
	if _, err := s.news.await(ctx, sent, of.name); err != nil {
		return nil, err
	}
	requests, err := s.audit.since()
	if err != nil {
		return nil, err
	}
	var effects []time.Time
	for _, r := range requests {
		if r.writes() && r.ObjectRef.Resource == of.effects && strings.HasPrefix(r.ObjectRef.Name, of.name) {
			effects = append(effects, r.Received)
		}
	}
	for i, effect := range effects {
		last := of.ready.lastBefore(effect)
		if !last.IsZero() && (i == 0 || last.After(effects[i-1])) {
			took = append(took, effect.Sub(last))
		}
	}
	return took, nil
}

// readiness is when pods of an application became ready, as a watch of the cluster tells.
type readiness struct {
	stop func()

	mu   sync.Mutex
	seen map[types.UID]bool
	at   []time.Time
}

func watchReady(ctx context.Context, client *kubernetes.Clientset, app string) *readiness {
	ctx, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	r := &readiness{seen: map[types.UID]bool{}, stop: func() { cancel(); done.Wait() }}
	done.Go(func() {
		for ctx.Err() == nil {
			events, err := client.CoreV1().Pods(appsNamespace).Watch(ctx, metav1.ListOptions{LabelSelector: "app=" + app})
			if err != nil {
				pause(ctx, time.Second)
				continue
			}
			for event := range events.ResultChan() {
				if pod, ok := event.Object.(*corev1.Pod); ok {
					r.note(pod)
				}
			}
		}
	})
	return r
}

func (r *readiness) note(pod *corev1.Pod) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue && !r.seen[pod.UID] {
			r.seen[pod.UID] = true
			r.at = append(r.at, now)
		}
	}
}

func (r *readiness) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at = nil
}

// lastBefore is when the last pod became ready before a moment; zero when none did.
func (r *readiness) lastBefore(moment time.Time) (last time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, at := range r.at {
		if at.Before(moment) && at.After(last) {
			last = at
		}
	}
	return last
}

// waiters is how many targets have the objects that change while steps are measured.
const waiters = 10

// busy makes objects of targets under way change 30 times a second, until the function it returns is called. Their pods cannot start, so that the targets
// stay under way and look at each change.
func (b *bench) busy(ctx context.Context, s *site, client *kubernetes.Clientset) (end func(), err error) {
	files := map[string]string{}
	for i := range waiters {
		name := fmt.Sprintf("waiter-%d", i)
		files[name+"/towpath.yaml"] = fmt.Sprintf(deploymentFile, name)
		files[name+"/app.yaml"] = strings.Replace(fmt.Sprintf(threePods, name, appsNamespace, 1), "/web:1", "/web:missing", 1)
	}
	if _, err := s.push(ctx, "Add targets that stay under way", files); err != nil {
		return nil, err
	}
	sets, err := underWay(ctx, client)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() {
		each := time.NewTicker(time.Second / 30)
		defer each.Stop()
		for n := 0; ctx.Err() == nil; n++ {
			patch := fmt.Appendf(nil, `{"metadata":{"annotations":{"bench/change":"%d"}}}`, n)
			_, _ = client.AppsV1().ReplicaSets(appsNamespace).Patch(ctx, sets[n%len(sets)], types.MergePatchType, patch, metav1.PatchOptions{}) // one that fails is one event less
			select {
			case <-each.C:
			case <-ctx.Done():
			}
		}
	})
	return func() { cancel(); done.Wait() }, nil
}

// underWay waits until each of the waiters has its ReplicaSet, and names these.
func underWay(ctx context.Context, client *kubernetes.Clientset) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		list, err := client.AppsV1().ReplicaSets(appsNamespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, fmt.Errorf("the ReplicaSets of targets that stay under way: %w", err)
		}
		var names []string
		for _, set := range list.Items {
			if strings.HasPrefix(set.Name, "waiter-") {
				names = append(names, set.Name)
			}
		}
		if len(names) == waiters {
			return names, nil
		}
		pause(ctx, 100*time.Millisecond)
	}
}
