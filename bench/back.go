package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"towpath/api"
)

// backFile is an application that waits for a person once traffic goes to its new version: by a Service that turned, or by half of its pods.
const backFile = `application: %s
targets: {prod: {account: prod, namespace: ` + appsNamespace + `, strategy: careful}}
manifests: [{path: app.yaml}]
%s
strategies: {careful: %s}
`

const turningService = `---
apiVersion: v1
kind: Service
metadata: {name: %[1]s, namespace: %[2]s}
spec: {selector: {app: %[1]s}, ports: [{port: 80}]}
`

// back is how soon traffic is back once a person said so, where the former revision still has its pods.
func back(ctx context.Context, b *bench) error {
	s, err := b.appsSite(ctx)
	if err != nil {
		return err
	}
	for _, way := range []struct{ name, what, more, strategy, resource string }{
		{"turns", "blue/green: rejected to Service turned back", "trafficManagement: [{kubernetes: [{activeService: turns}]}]",
			"{blueGreen: {shutDownOldVersionAfter: [{pause: {untilApproved: true}}]}}", "services"},
		{"shares", "canary at 50 %: rejected to former revision asked for all its pods", "",
			"{canary: {steps: [{setWeight: {weight: 50}}, {pause: {untilApproved: true}}]}}", "replicasets"},
	} {
		commit := func(n int) (time.Time, error) {
			return s.push(ctx, "Change the image", map[string]string{way.name + "/towpath.yaml": fmt.Sprintf(backFile, way.name, way.more, way.strategy),
				way.name + "/app.yaml": fmt.Sprintf(threePods+turningService, way.name, appsNamespace, n)})
		}
		sent, err := commit(0)
		if err != nil {
			return err
		}
		if _, err := s.news.await(ctx, sent, way.name); err != nil {
			return err
		}
		disturbed := b.quiet.watch()
		var took samples
		for n := range b.count(20) {
			if sent, err = commit(n + 1); err != nil {
				return err
			}
			if _, err := s.news.asked(ctx, sent, way.name); err != nil {
				return err
			}
			rejected, err := s.reject(ctx, way.name)
			if err != nil {
				return err
			}
			if err := s.news.ended(ctx, rejected, way.name); err != nil {
				return err
			}
			first, err := s.audit.firstWriteOf(way.resource, way.name)
			if err != nil {
				return err
			}
			took = append(took, first.Sub(rejected))
		}
		b.results.add(disturbed(), figure{Name: way.what + ", p95", Value: took.at(.95), Unit: "ms", Goal: atMost(500), Detail: took.String()})
	}
	return nil
}

// reject refuses what the newest deployment of an application waits for; what comes after is in the audit log since.
func (s *site) reject(ctx context.Context, application string) (sent time.Time, err error) {
	var newest struct{ Items []api.Deployment }
	if err := s.controller.API.Call(ctx, http.MethodGet, "/deployments?limit=1&application="+application, nil, &newest); err != nil || len(newest.Items) == 0 {
		return sent, fmt.Errorf("the newest deployment of %s: %w", application, err)
	}
	if err := s.audit.skip(); err != nil {
		return sent, err
	}
	sent = time.Now()
	return sent, s.controller.API.Call(ctx, http.MethodPost, "/deployments/"+newest.Items[0].ID+"/reject", api.Word{Reason: "the benchmark"}, nil)
}

// firstWriteOf is when the first write to an object of a resource was answered, since the last skip.
func (a *audit) firstWriteOf(resource, name string) (time.Time, error) {
	requests, err := a.since()
	for _, r := range requests {
		if r.writes() && r.ObjectRef.Resource == resource && strings.HasPrefix(r.ObjectRef.Name, name) {
			return r.Answered, err
		}
	}
	return time.Time{}, fmt.Errorf("no write to %s of %s is in the audit log: %w", resource, name, err)
}
