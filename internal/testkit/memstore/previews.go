package memstore

import (
	"context"
	"fmt"
	"slices"

	"towpath/reconcile/rollout"
	"towpath/store"
)

type linkRow struct {
	store.Preview
	target int64
}

// expose records links that a target's steps make.
func (s *Store) expose(t rollout.Target, links []rollout.Link) {
	for _, l := range links {
		if slices.ContainsFunc(s.links, func(o *linkRow) bool {
			return o.target == t.ID && o.Link.Gate == l.Gate && o.Link.Service == l.Service
		}) {
			continue
		}
		number := len(s.links) + 1
		s.links = append(s.links, &linkRow{store.Preview{ID: fmt.Sprint("link-", number), Random: fmt.Sprint("random-", number), Tenant: t.Tenant, Account: t.Account,
			Application: t.Application, Deployment: t.Deployment, Target: t.Name, Link: &l, By: "towpath", Made: l.Made, Until: l.Until}, t.ID})
	}
}

func (s *Store) linksOf(target int64) (links []rollout.Link) {
	for _, row := range s.links {
		if row.target == target {
			links = append(links, *row.Link)
		}
	}
	return links
}

// randoms is the random part of the newest link to each Service of a target that has one which holds.
func (s *Store) randoms(target int64) map[string]string {
	randoms := map[string]string{}
	for _, row := range s.links {
		if p := s.shown(row); row.target == target && p.Random != "" {
			randoms[row.Link.Service] = p.Random
		}
	}
	return randoms
}

// shown is a preview as others see it: with its random part while it holds.
func (s *Store) shown(row *linkRow) store.Preview {
	p := row.Preview
	if !p.Holds(s.clock()) {
		p.Random = ""
	}
	return p
}

// Previews lists the links of a deployment.
func (s *Store) Previews(_ context.Context, tenant, deployment string) (all []store.Preview, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.deployments[deployment]; d == nil || d.start.Tenant != tenant {
		return nil, rollout.Refuse(rollout.Missing, "no deployment %s", deployment)
	}
	for _, row := range s.links {
		if row.Deployment == deployment {
			all = append(all, s.shown(row))
		}
	}
	return all, nil
}

// Preview is what a random part leads to; store.ErrNoPreview when there is nothing that holds.
func (s *Store) Preview(_ context.Context, random string) (store.Preview, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, row := range s.links {
		if p := s.shown(row); random != "" && p.Random == random {
			return p, nil
		}
	}
	return store.Preview{}, store.ErrNoPreview
}

// EndPreview ends a preview before its time.
func (s *Store) EndPreview(_ context.Context, tenant, id, by string) error {
	return s.write(func() error {
		for _, row := range s.links {
			if p := s.shown(row); p.ID == id && p.Tenant == tenant && p.Random != "" {
				row.Revoked = s.clock()
				s.event(rollout.Event{At: s.clock(), Tenant: tenant, Application: p.Application, Deployment: p.Deployment, Target: p.Target, Who: by, Kind: "preview.revoked",
					What: fmt.Sprintf("%s: the preview link to Service %s was revoked", p.Target, p.Link.Service)})
				return nil
			}
		}
		return rollout.Refuse(rollout.Missing, "no preview %s that holds; `towpath preview list` names those that do", id)
	})
}
