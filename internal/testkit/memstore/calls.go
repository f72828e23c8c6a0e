package memstore

import (
	"context"
	"fmt"
	"slices"

	"towpath/reconcile/rollout"
	"towpath/store"
)

type callRow struct {
	rollout.Call
	target int64
}

// ask records calls that are to be made, or to be made again.
func (s *Store) ask(t rollout.Target, calls []rollout.Call) {
	for _, c := range calls {
		i := slices.IndexFunc(s.calls, func(o *callRow) bool {
			return o.target == t.ID && o.Gate == c.Gate && o.Name == c.Name && o.Run == c.Run && o.Of == c.Of
		})
		if i < 0 {
			c.ID = fmt.Sprint("call-", len(s.calls)+1)
			s.calls = append(s.calls, &callRow{c, t.ID})
		} else {
			c.ID, c.Callback = s.calls[i].ID, s.calls[i].Callback
			s.calls[i].Call = c
		}
		s.asked = append(s.asked, c.ID)
	}
}

func (s *Store) callsOf(target int64) (calls []rollout.Call) {
	for _, row := range s.calls {
		if row.target == target {
			calls = append(calls, row.Call)
		}
	}
	return calls
}

func (s *Store) call(id string) *callRow {
	i := slices.IndexFunc(s.calls, func(row *callRow) bool { return row.ID == id })
	if i < 0 {
		return nil
	}
	return s.calls[i]
}

// Asked gives the calls that are to be made since it was last called.
func (s *Store) Asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = nil
	return asked
}

// Call is a call that is to be made; nil when it needs to be made no more.
func (s *Store) Call(_ context.Context, id string) (*rollout.Asked, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	row := s.call(id)
	if row == nil || row.Answer != nil || row.Callback != nil {
		return nil, nil
	}
	t := s.targets[row.target].Target
	if !t.Awaits(row.Call) {
		return nil, nil
	}
	start := s.deployments[t.Deployment].start
	return &rollout.Asked{Call: row.Call, Target: t, Source: start.Origin.Source, Path: start.Origin.Path, File: start.Text, Links: s.randoms(t.ID)}, nil
}

// Answer records what a try came to.
func (s *Store) Answer(_ context.Context, c rollout.Call, answer rollout.Answer) error {
	return s.write(func() error {
		if row := s.call(c.ID); row != nil && row.Try == c.Try && row.Answer == nil {
			if row.Answer = &answer; answer.Wakes(c, s.now()) {
				s.wakeFor(row)
			}
		}
		return nil
	})
}

func (s *Store) wakeFor(row *callRow) {
	s.wakeWhere(func(l *laneRow) bool { return l.queue.Current == row.target })
}

// CallBack records what a webhook says of what it has done, once.
func (s *Store) CallBack(_ context.Context, tenant, id string, callback rollout.Callback) error {
	return s.write(func() error {
		row := s.call(id)
		if row == nil || s.targets[row.target].Tenant != tenant {
			return rollout.NoCallback()
		}
		event, err := callback.On(row.Call, s.targets[row.target].Target)
		if err != nil {
			return err
		}
		row.Callback = &callback
		s.event(event)
		s.wakeFor(row)
		return nil
	})
}

// Calls lists what the targets of a deployment have asked of the world outside.
func (s *Store) Calls(_ context.Context, tenant, deployment string) (views []store.CallView, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.deployments[deployment]
	if d == nil || d.start.Tenant != tenant {
		return nil, rollout.Refuse(rollout.Missing, "no deployment %s", deployment)
	}
	for _, id := range d.targets {
		for _, c := range s.callsOf(id) {
			views = append(views, store.CallView{Call: c, Target: s.targets[id].Name})
		}
	}
	return views, nil
}

// RecoverCalls is called when a process starts: each call without an answer is to be made.
func (s *Store) RecoverCalls(context.Context) error {
	return s.write(func() error {
		for _, row := range s.calls {
			if row.Answer == nil && row.Callback == nil {
				s.asked = append(s.asked, row.ID)
			}
		}
		return nil
	})
}
