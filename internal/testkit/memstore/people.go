package memstore

import (
	"context"
	"fmt"
	"slices"

	"towpath/reconcile/rollout"
	"towpath/store"
)

// Say records a person's word and wakes the lane.
func (s *Store) Say(_ context.Context, said rollout.Saying) error {
	return s.write(func() error {
		d := s.deployments[said.Deployment]
		if d == nil || d.start.Tenant != said.Tenant {
			return rollout.Refuse(rollout.Missing, "no deployment %s", said.Deployment)
		}
		t, err := said.Find(s.targetsOf(d))
		if err != nil {
			return err
		}
		gates, err := said.Gates(t)
		if err != nil {
			return err
		}
		for _, gate := range gates {
			word, event := said.Word(t, gate, s.now())
			if !word.Repeats(d.words) {
				d.words = append(d.words, word)
				s.event(event)
			}
		}
		s.wake(s.lanes[t.Lane])
		return nil
	})
}

func (s *Store) targetsOf(d *deploymentRow) []rollout.Target {
	targets := make([]rollout.Target, len(d.targets))
	for i, id := range d.targets {
		targets[i] = s.targets[id].Target
	}
	return targets
}

// Cancel records that a person wants a deployment to stop.
func (s *Store) Cancel(_ context.Context, tenant, deployment, by, reason string) error {
	return s.write(func() error {
		d := s.deployments[deployment]
		switch {
		case d == nil || d.start.Tenant != tenant:
			return rollout.Refuse(rollout.Missing, "no deployment %s", deployment)
		case d.view.State.Final():
			return rollout.Refuse(rollout.Conflicts, "deployment %s is %s already", deployment, d.view.State)
		}
		request := rollout.Request{By: by, Reason: reason, At: s.now()}
		s.event(rollout.Event{At: s.now(), Tenant: tenant, Application: d.start.Application, Deployment: deployment, Who: by, Kind: "deployment.cancel",
			What: fmt.Sprintf("%s asked #%d to stop", by, d.view.Number), Why: reason})
		if d.queued {
			s.dropQueued(d, request.Sentence())
			return nil
		}
		s.cancelAll(d, request)
		return nil
	})
}

// cancelAll records that a deployment is to stop: it ends the targets that wait behind others, and wakes the lanes of those that are under way.
func (s *Store) cancelAll(d *deploymentRow, request rollout.Request) {
	if d.cancel == nil {
		d.cancel = &request
	}
	for _, id := range d.targets {
		t := s.targets[id]
		if lane := s.lanes[t.Lane]; lane.queue.Next == id {
			lane.queue.Next = 0
			s.endUnstarted(t, request.Sentence())
		}
	}
	s.wakeWhere(func(l *laneRow) bool { return slices.Contains(d.targets, l.queue.Current) })
}

func (s *Store) endUnstarted(t *targetRow, why string) {
	ended, event := t.Unstarted(why, s.now())
	t.Target = ended
	s.event(event)
	s.moved(t)
}

// Hold halts rollouts; a *rollout.Refusal when there is such a hold already.
func (s *Store) Hold(_ context.Context, h store.Hold) error {
	return s.write(func() error {
		if s.hold(h) >= 0 {
			return rollout.Refuse(rollout.Conflicts, "%s are halted already", h)
		}
		h.At = s.now()
		s.holds = append(s.holds, h)
		s.holdChanged(h, "hold", "halted")
		return nil
	})
}

// Unhold lifts a hold; a *rollout.Refusal when there is none.
func (s *Store) Unhold(_ context.Context, h store.Hold) error {
	return s.write(func() error {
		i := s.hold(h)
		if i < 0 {
			return rollout.Refuse(rollout.Missing, "no hold on %s", h)
		}
		s.holds = slices.Delete(s.holds, i, i+1)
		s.holdChanged(h, "unhold", "let go on")
		return nil
	})
}

func (s *Store) hold(h store.Hold) int {
	return slices.IndexFunc(s.holds, func(o store.Hold) bool { return o.Tenant == h.Tenant && o.Scope == h.Scope && o.Name == h.Name })
}

func (s *Store) holdChanged(h store.Hold, kind, done string) {
	event := rollout.Event{At: s.now(), Tenant: h.Tenant, Who: h.By, Kind: kind, What: fmt.Sprintf("%s %s %s", h.By, done, h), Why: h.Reason}
	if h.Scope == store.ScopeApplication {
		event.Application = h.Name
	}
	s.event(event)
	s.wakeWhere(func(l *laneRow) bool { return halts(h, l.tenant, l.application, l.account) })
}

func halts(h store.Hold, tenant, application, account string) bool {
	if h.Tenant != tenant {
		return false
	}
	switch h.Scope {
	case store.ScopeApplication:
		return h.Name == application
	case store.ScopeAccount:
		return h.Name == account
	}
	return true
}

// holdOn is the oldest hold that halts a target; nil: none.
func (s *Store) holdOn(t rollout.Target) *rollout.Hold {
	for _, h := range s.holds {
		if halts(h, t.Tenant, t.Application, t.Account) {
			return &rollout.Hold{By: h.By, Reason: h.Reason, At: h.At}
		}
	}
	return nil
}
