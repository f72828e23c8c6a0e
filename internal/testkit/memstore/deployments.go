package memstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"towpath/manifest"
	"towpath/reconcile/rollout"
	"towpath/store"
)

// Start records a deployment; when the application's rules forbid it now it is recorded as REJECTED, and the error is a *store.ErrUnderWay.
func (s *Store) Start(_ context.Context, start rollout.Start, sealed map[string][]manifest.Object) error {
	var refused error
	err := s.write(func() error {
		for digest, objects := range sealed {
			s.sealed[digest] = objects
		}
		if known := s.deployments[start.ID]; known != nil {
			refused = known.refused
			return nil
		}
		number := s.number(start)
		underWay := s.underWay(start.Tenant, start.Application)
		d := &deploymentRow{start: start, view: store.DeploymentView{ID: start.ID, Tenant: start.Tenant, Application: start.Application, Number: number,
			Description: start.Description, Origin: start.Origin, Trigger: start.Trigger, Context: start.Context, State: rollout.Queued, Created: start.At}}
		turn := start.Turn(underWay != nil)
		if turn == rollout.IsRefused {
			under := &store.ErrUnderWay{Application: start.Application, ID: underWay.start.ID, Number: underWay.view.Number, Rejected: start.ID}
			d.refused, d.view.State, d.view.Why, d.view.Ended = under, rollout.Rejected, under.Error(), start.At
			refused = under
		}
		s.deployments[start.ID] = d
		s.began(d)
		switch turn {
		case rollout.IsRefused:
			s.tell(d)
		case rollout.WaitsForIt:
			s.enqueueDeployment(d, underWay.view.Number)
		default:
			s.startTargets(d, underWay != nil)
		}
		return nil
	})
	return errors.Join(err, refused)
}

// number gives the application its next number, and makes it when it is new.
func (s *Store) number(start rollout.Start) int {
	name := application{start.Tenant, start.Application}
	row := s.applications[name]
	if row == nil {
		row = &applicationRow{}
		s.applications[name] = row
	}
	if row.number++; !start.Pin || row.number == 1 {
		row.Owner = rollout.Owner{Application: start.Application, Source: start.Origin.Source, Path: start.Origin.Path}
	}
	row.Removed = false
	return row.number
}

// underWay is the newest unfinished deployment of an application, or nil. One that has begun comes before those that wait for it.
func (s *Store) underWay(tenant, name string) (newest *deploymentRow) {
	for _, d := range s.deployments {
		if d.start.Tenant != tenant || d.start.Application != name || !d.view.Ended.IsZero() {
			continue
		}
		if newest == nil || newest.queued && !d.queued || newest.queued == d.queued && d.view.Number > newest.view.Number {
			newest = d
		}
	}
	return newest
}

func (s *Store) began(d *deploymentRow) {
	what := fmt.Sprintf("#%d is %s", d.view.Number, d.view.State)
	if commit := d.start.Origin.Commit; commit != "" {
		what += ": commit " + commit[:min(len(commit), 7)]
		if d.start.Trigger.Title != "" {
			what += ", " + d.start.Trigger.Title
		}
	}
	s.event(rollout.Event{At: d.start.At, Tenant: d.start.Tenant, Application: d.start.Application, Deployment: d.start.ID, Who: d.start.Trigger.By,
		Kind: "deployment." + strings.ToLower(string(d.view.State)), What: what, Why: d.view.Why})
}

func (s *Store) startTargets(d *deploymentRow, others bool) {
	for _, target := range d.start.Targets {
		lane := s.laneOf(d.start, target)
		if !d.start.Moves(target, others) {
			s.unpin(lane, d.start, target)
			s.add(d, &targetRow{Target: d.start.Carried(s.newID(), lane.id, d.view.Number, target), carriedBy: lane.wanted})
			continue
		}
		row := &targetRow{Target: d.start.Execution(s.newID(), lane.id, d.view.Number, target).On(s.unproved(lane))}
		s.add(d, row)
		if !d.start.Pin {
			lane.Wanted, lane.Promise, lane.wanted, lane.Removed = target.Manifests, target.Digest, row.ID, false
		}
		s.put(lane, row)
	}
	for _, gone := range d.start.Gone {
		s.leave(d, gone)
	}
	s.summarize(d)
}

func (s *Store) unpin(lane *laneRow, start rollout.Start, target rollout.StartTarget) {
	event := lane.Unpin(start, target)
	if event == nil {
		return
	}
	lane.Pin, lane.Wanted, lane.Promise = nil, target.Manifests, target.Digest
	for id, t := range s.targets {
		if t.Lane == lane.id && t.Deployment == lane.Good.Deployment {
			lane.wanted = id
		}
	}
	s.event(*event)
}

// unproved is what a lane was last asked for; nil: it was proved good.
func (s *Store) unproved(lane *laneRow) *rollout.Target {
	if t := s.targets[lane.wanted]; t != nil && t.State != rollout.Succeeded {
		return &t.Target
	}
	return nil
}

func (s *Store) add(d *deploymentRow, t *targetRow) {
	s.targets[t.ID] = t
	d.targets = append(d.targets, t.ID)
}

func (s *Store) put(lane *laneRow, t *targetRow) {
	var skipped int64
	lane.queue, skipped = lane.queue.Put(t.ID)
	if skipped != 0 {
		s.targets[skipped].replacedBy = t.ID
		s.endUnstarted(s.targets[skipped], fmt.Sprintf("replaced by #%d", t.Number))
	}
	s.wake(lane)
}

// leave records that a target left the file.
func (s *Store) leave(d *deploymentRow, gone rollout.Gone) {
	lane := s.lanes[gone.Lane]
	if gone.Prune {
		row := &targetRow{Target: d.start.Removal(s.newID(), lane.id, d.view.Number, lane.target, lane.account)}
		s.add(d, row)
		s.put(lane, row)
		return
	}
	lane.Removed, lane.Wanted, lane.Promise = true, "", ""
	s.event(rollout.Event{At: d.start.At, Tenant: lane.tenant, Application: lane.application, Deployment: d.start.ID, Target: lane.target, Who: d.start.Trigger.By,
		Kind: "target.orphaned", What: fmt.Sprintf("%s: its objects stay and nobody owns them", lane.target),
		Why: "the target left the file, and the file did not say deploymentConfig.prune: true"})
}

func (s *Store) laneOf(start rollout.Start, target rollout.StartTarget) *laneRow {
	if lane := s.findLane(start, target); lane != nil {
		return lane
	}
	lane := &laneRow{id: s.newID(), tenant: start.Tenant, application: start.Application, target: target.Name, account: target.Account}
	s.lanes[lane.id] = lane
	s.order = append(s.order, lane.id)
	return lane
}

func (s *Store) findLane(start rollout.Start, target rollout.StartTarget) *laneRow {
	for _, lane := range s.lanes {
		if lane.tenant == start.Tenant && lane.application == start.Application && lane.target == target.Name && lane.account == target.Account {
			return lane
		}
	}
	return nil
}

// enqueueDeployment lets a deployment wait for another to end. Only the newest one waits.
func (s *Store) enqueueDeployment(d *deploymentRow, behind int) {
	for _, other := range s.deployments {
		if other.queued && other.start.Tenant == d.start.Tenant && other.start.Application == d.start.Application {
			s.dropQueued(other, d.start.Displaces(d.view.Number))
		}
	}
	d.queued, d.view.Why = true, fmt.Sprintf("waits for #%d to end", behind)
	s.tell(d)
}

func (s *Store) dropQueued(d *deploymentRow, why string) {
	d.queued, d.view.State, d.view.Why, d.view.Ended = false, rollout.Cancelled, why, s.now()
	s.event(rollout.Event{At: s.now(), Tenant: d.start.Tenant, Application: d.start.Application, Deployment: d.start.ID, Who: "towpath", Kind: "deployment.state",
		What: fmt.Sprintf("#%d is %s", d.view.Number, rollout.Cancelled), Why: why})
	s.tell(d)
}

// startQueued starts the deployment that waits for its turn, once no other of its application is under way. What moves is judged anew.
func (s *Store) startQueued(name application) {
	var waits *deploymentRow
	for _, d := range s.deployments {
		if d.start.Tenant != name.tenant || d.start.Application != name.name || !d.view.Ended.IsZero() {
			continue
		}
		if !d.queued {
			return
		}
		waits = d
	}
	if waits == nil {
		return
	}
	waits.queued, waits.view.Why = false, ""
	waits.start.At = s.now()
	waits.start.Targets = slices.Clone(waits.start.Targets)
	for i, t := range waits.start.Targets {
		lane := s.findLane(waits.start, t)
		waits.start.Targets[i].Changed = lane == nil || lane.state().Moves(t.Manifests, t.Digest)
	}
	s.startTargets(waits, false)
}

func (l *laneRow) state() rollout.LaneState {
	return rollout.LaneState{ID: l.id, Target: l.target, Account: l.account, Wanted: l.Wanted, Promise: l.Promise, Good: l.Good, Removed: l.Removed, Pin: l.Pin}
}

// Lanes is the lanes of an application, by target.
func (s *Store) Lanes(_ context.Context, tenant, name string) (lanes []rollout.LaneState, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range s.order {
		row := s.lanes[id]
		if row.tenant != tenant || row.application != name {
			continue
		}
		lane := row.state()
		lane.Inventory = s.inventoryOf(id)
		if t := s.targets[row.wanted]; t != nil {
			lane.Number = t.Number
		}
		lanes = append(lanes, lane)
	}
	slices.SortFunc(lanes, func(a, b rollout.LaneState) int {
		return strings.Compare(a.Target+"\x00"+a.Account, b.Target+"\x00"+b.Account)
	})
	return lanes, nil
}

// Deployment is one deployment with its targets; a *rollout.Refusal when there is none of that id.
func (s *Store) Deployment(_ context.Context, tenant, id string) (store.DeploymentView, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.deployments[id]
	if d == nil || d.start.Tenant != tenant {
		return store.DeploymentView{}, rollout.Refuse(rollout.Missing, "no deployment %s", id)
	}
	view := d.view
	for _, id := range d.targets {
		t := s.targets[id]
		v := store.TargetView{Target: t.Target}
		if carrier := s.targets[t.carriedBy]; carrier != nil {
			v.CarriedBy, v.State, v.Phase, v.Waits = carrier.Number, carrier.State, carrier.Phase, carrier.Waits
		}
		view.Targets = append(view.Targets, v)
	}
	return view, nil
}

// Started is a deployment as it was recorded, for starting it again.
func (s *Store) Started(_ context.Context, tenant, id string) (rollout.Start, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.deployments[id]
	if d == nil || d.start.Tenant != tenant {
		return rollout.Start{}, rollout.Refuse(rollout.Missing, "no deployment %s", id)
	}
	start := rollout.Start{ID: id, Tenant: tenant, Application: d.start.Application, Description: d.start.Description, Origin: d.start.Origin,
		Trigger: d.start.Trigger, Context: d.start.Context, Text: d.start.Text}
	for _, t := range s.targetsOf(d) {
		if !t.Removes {
			start.Targets = append(start.Targets, rollout.StartTarget{Name: t.Name, Account: t.Account, Namespace: t.Namespace, Way: t.Way, Digest: t.Digest, Manifests: t.Manifests})
		}
	}
	return start, nil
}
