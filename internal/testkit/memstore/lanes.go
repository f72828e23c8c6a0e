package memstore

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// Claim takes a lane for a while; rollout.ErrLeased when another run has it.
func (s *Store) Claim(_ context.Context, lane int64, lasts time.Duration) (lease rollout.Lease, err error) {
	err = s.write(func() error {
		row := s.lanes[lane]
		if row.lease.After(s.now()) {
			return rollout.ErrLeased
		}
		row.epoch++
		row.lease = s.now().Add(lasts)
		row.due = row.lease
		lease = rollout.Lease{Lane: lane, Epoch: row.epoch, Until: row.lease}
		return nil
	})
	return lease, err
}

// AccountOf is whose lane it is, and on which account.
func (s *Store) AccountOf(_ context.Context, lane int64) (tenant, account string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lanes[lane]
	if l == nil {
		return "", "", fmt.Errorf("no lane %d", lane)
	}
	return l.tenant, l.account, nil
}

// Extend makes a lease last from now on; rollout.ErrStale when it was lost.
func (s *Store) Extend(_ context.Context, lease rollout.Lease, lasts time.Duration) (rollout.Lease, error) {
	return lease, s.write(func() error {
		row := s.lanes[lease.Lane]
		if row.epoch != lease.Epoch {
			return rollout.ErrStale
		}
		lease.Until = s.now().Add(lasts)
		row.lease, row.due = lease.Until, lease.Until
		return nil
	})
}

// Rest gives a lane back, to be woken at due; false, and nothing is given back, when it was woken since seq was read.
func (s *Store) Rest(_ context.Context, lease rollout.Lease, seq int64, due time.Time) (rests bool, err error) {
	err = s.write(func() error {
		row := s.lanes[lease.Lane]
		if row.epoch != lease.Epoch {
			return rollout.ErrStale
		}
		if rests = row.seq == seq; rests {
			row.lease, row.due = time.Time{}, due
		}
		return nil
	})
	return rests, err
}

// Wake makes a lane be run again, now.
func (s *Store) Wake(_ context.Context, lane int64) error {
	return s.write(func() error {
		s.wake(s.lanes[lane])
		return nil
	})
}

// WakeAccount wakes each lane of an account on which something is under way.
func (s *Store) WakeAccount(_ context.Context, tenant, account string) error {
	return s.write(func() error {
		s.wakeWhere(func(l *laneRow) bool { return l.tenant == tenant && l.account == account })
		return nil
	})
}

// WakeDue wakes each lane whose time has come, and returns the times of the others.
func (s *Store) WakeDue(_ context.Context, now time.Time) (later map[int64]time.Time, err error) {
	later = map[int64]time.Time{}
	return later, s.write(func() error {
		for _, id := range s.order {
			switch row := s.lanes[id]; {
			case row.due.IsZero():
			case row.due.After(now):
				later[id] = row.due
			default:
				s.wake(row)
				row.due = time.Time{}
			}
		}
		return nil
	})
}

// Recover is called when a process starts: what a dead one held is free where no other can hold it, and what is under way is woken.
func (s *Store) Recover(context.Context) error {
	return s.write(func() error {
		for _, row := range s.lanes {
			if s.Exclusive {
				row.lease = time.Time{}
			}
		}
		s.wakeWhere(func(*laneRow) bool { return true })
		return nil
	})
}

// Lane is one consistent read of all that is known about a lane.
func (s *Store) Lane(_ context.Context, id int64) (rollout.Lane, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	row, found := s.lanes[id]
	if !found {
		return rollout.Lane{}, fmt.Errorf("no lane %d", id)
	}
	lane := rollout.Lane{ID: id, Seq: row.seq, Good: row.Good, Replaced: row.Replaced}
	if next := row.queue.Next; next != 0 {
		lane.ReplacedBy = s.targets[next].Number
	}
	if row.queue.Current == 0 {
		return lane, nil
	}
	t := s.targets[row.queue.Current].Target
	d := s.deployments[t.Deployment]
	lane.Current, lane.Inventory, lane.Words, lane.Cancel, lane.Hold = &t, s.inventoryOf(id), slices.Clone(d.words), d.cancel, s.holdOn(t)
	lane.Calls, lane.Links = s.callsOf(t.ID), s.linksOf(t.ID)
	if t.ReportsAtFirst() {
		lane.Judged = maps.Clone(row.judged)
	}
	if len(t.DependsOn) > 0 {
		states := s.states(d, rollout.OfDependents)
		lane.Dependencies = map[string]rollout.State{}
		for _, name := range t.DependsOn {
			lane.Dependencies[name] = states[name]
		}
	}
	return lane, nil
}

func (s *Store) inventoryOf(lane int64) (keys []manifest.Key) {
	for at, owner := range s.inventory {
		if owner == lane {
			keys = append(keys, at.key)
		}
	}
	slices.SortFunc(keys, manifest.Key.Compare)
	return keys
}

// Save records a decision and all that follows from it.
func (s *Store) Save(_ context.Context, lease rollout.Lease, d rollout.Decision) error {
	return s.write(func() error {
		lane := s.lanes[lease.Lane]
		if lane.epoch != lease.Epoch || lane.queue.Current != d.Target.ID {
			return rollout.ErrStale
		}
		if err := s.claim(lane, d.Claim); err != nil {
			return err
		}
		for _, key := range d.Drop {
			if at := (place{lane.tenant, lane.account, key}); s.inventory[at] == lane.id {
				delete(s.inventory, at)
			}
		}
		row := s.targets[d.Target.ID]
		was := row.State
		row.Target = d.Target
		lane.Standing = lane.Settle(d)
		s.ask(d.Target, d.Calls)
		for _, sum := range d.Judges {
			if lane.judged == nil {
				lane.judged = map[string]int{}
			}
			lane.judged[sum]++
		}
		s.expose(d.Target, d.Exposes)
		for _, e := range d.Events {
			s.event(e)
		}
		if d.Cancels != nil {
			s.cancelAll(s.deployments[d.Target.Deployment], *d.Cancels)
		}
		if d.Target.State.Final() {
			s.promote(lane, row)
		}
		if d.Target.State != was {
			s.moved(row)
		} else {
			s.tell(s.deployments[d.Target.Deployment])
		}
		return nil
	})
}

func (s *Store) claim(lane *laneRow, keys []manifest.Key) error {
	for _, key := range keys {
		if owner := s.inventory[place{lane.tenant, lane.account, key}]; owner != 0 && owner != lane.id && !s.lanes[owner].Removed {
			return &rollout.Failure{Class: rollout.Refused, Object: key, Text: fmt.Sprintf("belongs to application %s; an object has one owner", s.lanes[owner].application)}
		}
	}
	for _, key := range keys {
		s.inventory[place{lane.tenant, lane.account, key}] = lane.id
	}
	return nil
}

func (s *Store) promote(lane *laneRow, ended *targetRow) {
	var replacedBy int64
	lane.queue, replacedBy = lane.queue.End(ended.State)
	if replacedBy != 0 {
		ended.replacedBy = replacedBy
		lane.Replaced++
	}
	if lane.queue.Current != 0 {
		s.wake(lane)
	}
}

// moved follows a target's new state to all that stands on it.
func (s *Store) moved(target *targetRow) {
	for _, d := range s.standingOn(target.ID) {
		s.summarize(d)
		s.wakeWhere(func(l *laneRow) bool {
			t := s.targets[l.queue.Current]
			return t.Deployment == d.start.ID && t.ID != target.ID && t.Phase == rollout.Waiting && len(t.DependsOn) > 0
		})
	}
}

// standingOn is the deployments whose state depends on a target's.
func (s *Store) standingOn(target int64) (deployments []*deploymentRow) {
	for open := []int64{target}; len(open) > 0; open = open[1:] {
		for id := int64(1); id <= s.ids; id++ {
			t := s.targets[id]
			if t == nil || id != open[0] && t.carriedBy != open[0] && t.replacedBy != open[0] {
				continue
			}
			if d := s.deployments[t.Deployment]; !slices.Contains(deployments, d) {
				deployments = append(deployments, d)
			}
			if id != open[0] && !slices.Contains(open, id) {
				open = append(open, id)
			}
		}
	}
	return deployments
}

// summarize derives a deployment's state from its targets'. A final state is never left again.
func (s *Store) summarize(d *deploymentRow) {
	if d.view.State.Final() {
		return
	}
	var all []rollout.State
	for _, state := range s.states(d, rollout.OfDeployment) {
		all = append(all, state)
	}
	state := rollout.Summary(all, d.cancel != nil)
	s.tell(d)
	if state == d.view.State {
		return
	}
	d.view.State = state
	if state != rollout.Queued && d.view.Started.IsZero() {
		d.view.Started = s.now()
	}
	s.event(rollout.Event{At: s.now(), Tenant: d.start.Tenant, Application: d.start.Application, Deployment: d.start.ID, Who: "towpath",
		Kind: "deployment.state", What: fmt.Sprintf("#%d is %s", d.view.Number, state)})
	if state.Final() {
		d.view.Ended = s.now()
		s.startQueued(application{d.start.Tenant, d.start.Application})
	}
}

func (s *Store) states(d *deploymentRow, eyes rollout.Eyes) map[string]rollout.State {
	stand := func(id int64) (rollout.Stand, error) {
		t := s.targets[id]
		return rollout.Stand{State: t.State, CarriedBy: t.carriedBy, ReplacedBy: t.replacedBy}, nil
	}
	states := map[string]rollout.State{}
	for _, id := range d.targets {
		own, _ := stand(id)
		states[s.targets[id].Name], _ = own.Seen(eyes, stand) // nothing is looked up that could fail
	}
	return states
}
