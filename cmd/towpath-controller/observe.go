package main

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"towpath/deployment"
	"towpath/reconcile"
	"towpath/reconcile/rollout"
)

// sight is what the clusters of a file tell of its application while the controller observes.
func (m *Main) sight(ctx context.Context, tenant string, file *deployment.File) (reconcile.Sight, error) {
	if on, err := m.store.Observing(ctx); err != nil || !on {
		return reconcile.Sight{}, err
	}
	sight := reconcile.Sight{Observing: true}
	for account, namespaces := range places(file) {
		found, err := m.census(ctx, tenant, account, namespaces)
		if err != nil {
			m.log.WithError(err).WithFields(logrus.Fields{"account": account, "path": file.Path}).Debug("a file waits until the cluster of an account can be asked")
			sight.Away = append(sight.Away, account)
			continue
		}
		for _, l := range found {
			if l.Tenant == tenant && l.Application == file.Application {
				sight.Above = max(sight.Above, l.Number)
			}
		}
	}
	slices.Sort(sight.Away)
	if ctx.Err() != nil {
		return sight, ctx.Err()
	}
	return sight, m.store.Unseen(ctx, file.Path, sight.Away)
}

// places is the accounts of a file, with the namespaces of its targets on them.
func places(file *deployment.File) map[string][]string {
	all := map[string][]string{}
	for _, target := range file.Chosen() {
		if target.Account == "" {
			continue // the plan says so
		}
		if target.Namespace != "" && !slices.Contains(all[target.Account], target.Namespace) {
			all[target.Account] = append(all[target.Account], target.Namespace)
		} else if all[target.Account] == nil {
			all[target.Account] = []string{}
		}
	}
	return all
}

// census lists what is ours in the cluster of an account, once it has said what it can do: charts are rendered for that.
func (m *Main) census(ctx context.Context, tenant, account string, namespaces []string) ([]rollout.Labelled, error) {
	if !m.clusters.Connected(tenant, account) {
		return nil, fmt.Errorf("the agent %s is not connected", account)
	}
	if err := m.capabilities.look(ctx, tenant, account); err != nil {
		return nil, err
	}
	return m.clusters.client(tenant, account).Census(ctx, namespaces)
}

// earlier is what a target was asked for by the commit of an earlier deployment.
func (m *Main) earlier(ctx context.Context, t rollout.Target, commit string) *rollout.Release {
	release, err := m.rendered(ctx, t, commit)
	if err != nil {
		m.log.WithError(err).WithFields(logrus.Fields{"application": t.Application, "target": t.Name, "commit": commit}).
			Warn("what a target was asked for before could not be rendered: should its next rollout fail, only traffic and pods go back to what runs now")
	}
	return release
}

func (m *Main) rendered(ctx context.Context, t rollout.Target, commit string) (*rollout.Release, error) {
	begun, err := m.store.Started(ctx, t.Tenant, t.Deployment)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	s := m.sources[begun.Origin.Source]
	m.mu.Unlock()
	if s == nil {
		return nil, fmt.Errorf("source %s is no longer configured", begun.Origin.Source)
	}
	tree, err := s.Tree(commit)
	if err != nil {
		return nil, err
	}
	text, err := fs.ReadFile(tree, begun.Origin.Path)
	if err != nil {
		return nil, err
	}
	origin := begun.Origin
	origin.Commit = commit
	release, objects, err := m.intake.Planner.Earlier(ctx, reconcile.Ask{Tenant: t.Tenant, Origin: origin, Tree: tree, Text: text}, t.Name)
	if err != nil || release == nil {
		return nil, err
	}
	release.Deployment, release.Number = t.Deployment, cmp.Or(t.RanNumber, t.Number)
	return release, m.store.SealManifests(ctx, release.Manifests, objects)
}

// observe follows whether everything is held back, which is the database's word: this controller, another one or an operator has changed it. While it is so,
// what is found is told.
func (m *Main) observe(ctx context.Context) {
	turns, ignore := m.store.Turns()
	defer ignore()
	each := time.NewTicker(time.Second)
	defer each.Stop()
	told := map[string]bool{}
	for {
		on, err := m.store.Observing(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			m.log.WithError(err).Error("whether to go on could not be read; trying again")
		case on:
			if !m.observing.Load() {
				m.holdBack()
			}
			m.tellFindings(ctx, told)
		case m.observing.Load():
			m.resume(ctx)
			clear(told)
		}
		again := each.C // SQLite tells nobody what an operator's program wrote
		if err == nil && !on {
			again = nil
		}
		select {
		case <-ctx.Done():
			return
		case _, open := <-turns:
			if !open {
				return
			}
		case <-again:
		}
	}
}

const observes = "the controller observes: it compares what runs with what Git asks for, and touches nothing, until: towpath-controller resume"

// holdBack ends what goes on, because another controller of this database has begun to observe.
func (m *Main) holdBack() {
	m.observing.Store(true)
	m.log.Warn(observes)
	m.tellers.Use(m.running, nil)
	for _, s := range m.hub.Agents() {
		m.keeper.Leave(s.Tenant, s.Agent)
	}
}

// tellFindings logs what was found since the last time.
func (m *Main) tellFindings(ctx context.Context, told map[string]bool) {
	all, err := m.store.Findings(ctx)
	if err != nil {
		if ctx.Err() == nil {
			m.log.WithError(err).Error("what was found could not be read; trying again")
		}
		return
	}
	for _, f := range all {
		key := f.Tenant + "/" + f.Application + "/" + f.Target
		if !f.Compared || told[key] {
			continue
		}
		told[key] = true
		log := m.log.WithFields(logrus.Fields{"application": f.Application, "target": f.Target, "account": f.Account})
		if len(f.Differs) == 0 {
			log.Info("it runs as it is asked for")
		} else {
			log.Warnf("it differs from what is asked for: %s", strings.Join(f.Differs, "; "))
		}
	}
}

// resume begins what observing held back.
func (m *Main) resume(ctx context.Context) {
	m.observing.Store(false)
	for _, s := range m.hub.Agents() {
		if m.clusters.Connected(s.Tenant, s.Agent) {
			m.keeper.Keep(ctx, s.Tenant, s.Agent)
		}
	}
	m.mu.Lock()
	c := m.latest
	m.mu.Unlock()
	if err := m.Reload(c); err != nil {
		m.log.WithError(err).Error("the configuration was not taken on whole")
	}
	m.log.Info("the controller goes on: what was found is acted upon from now on")
}
