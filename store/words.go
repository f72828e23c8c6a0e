package store

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"towpath/reconcile/rollout"
)

// Word is what a person says to a gate of a target under way.
type Word struct {
	Tenant, Deployment string
	Target             string // "": the only one that waits for such a word
	Gate               string // "": the only one of the target that waits for such a word
	Verb               rollout.Verb
	By                 string
	Roles              []string // that the person holds
	Admin              bool     // may say anything
	Reason             string
}

// spoken is what a word waits for, and what it is called once said.
var spoken = map[rollout.Verb]struct {
	kinds []rollout.WaitKind
	past  string
}{
	rollout.Approve: {[]rollout.WaitKind{rollout.WaitApproval}, "approved"},
	rollout.Reject:  {[]rollout.WaitKind{rollout.WaitApproval, rollout.WaitPause}, "rejected"},
	rollout.Pass:    {[]rollout.WaitKind{rollout.WaitPause, rollout.WaitApproval}, "skipped"},
	rollout.Retry:   {[]rollout.WaitKind{rollout.WaitRetry}, "asked to retry"},
}

// Say records a person's word and wakes the lane. Saying the same twice is saying it once.
func (s *Store) Say(ctx context.Context, w Word) error {
	return s.write(ctx, "word", func(tx *tx) error {
		t, err := tx.find(ctx, w)
		if err != nil {
			return err
		}
		gates, err := w.gates(t)
		if err != nil {
			return err
		}
		for _, gate := range gates {
			if err := tx.say(ctx, w, t, gate); err != nil {
				return err
			}
		}
		return tx.wakeLane(ctx, t.Lane)
	})
}

func (tx *tx) say(ctx context.Context, w Word, t rollout.Target, gate string) error {
	var known int
	if err := tx.queryRow(ctx, `SELECT COUNT(*) FROM words WHERE deployment_id = ? AND target = ? AND gate = ? AND digest = ? AND verb = ? AND who = ?`,
		t.Deployment, t.Name, gate, t.Digest, string(w.Verb), w.By).Scan(&known); err != nil || known > 0 && w.Verb != rollout.Retry {
		return err
	}
	if _, err := tx.exec(ctx, `INSERT INTO words (tenant_id, deployment_id, target, gate, digest, verb, who, reason, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		w.Tenant, t.Deployment, t.Name, gate, t.Digest, string(w.Verb), w.By, w.Reason, micros(tx.now())); err != nil {
		return err
	}
	what := fmt.Sprintf("%s: %s %s", t.Name, w.By, spoken[w.Verb].past)
	if gate != "" && gate != "prune" {
		what += " " + gate
	}
	return tx.event(ctx, rollout.Event{At: tx.now(), Tenant: w.Tenant, Application: t.Application, Deployment: t.Deployment, Target: t.Name, Who: w.By,
		Kind: "target." + strings.ReplaceAll(spoken[w.Verb].past, " ", "_"), What: what, Why: w.Reason})
}

// find is the target that a word is about.
func (tx *tx) find(ctx context.Context, w Word) (rollout.Target, error) {
	var none rollout.Target
	var known int
	if err := tx.queryRow(ctx, `SELECT COUNT(*) FROM deployments WHERE tenant_id = ? AND id = ?`, w.Tenant, w.Deployment).Scan(&known); err != nil {
		return none, err
	}
	if known == 0 {
		return none, refuse("no deployment %s", w.Deployment)
	}
	targets, err := tx.targets(ctx, w.Deployment)
	if err != nil {
		return none, err
	}
	var waiting []rollout.Target
	for _, t := range targets {
		if t.Name == w.Target {
			return t, nil
		}
		if w.Target == "" && slices.ContainsFunc(t.Waits, w.about) {
			waiting = append(waiting, t)
		}
	}
	switch {
	case w.Target != "":
		return none, refuse("deployment %s has no target %s", w.Deployment, w.Target)
	case len(waiting) == 0:
		return none, refuse("no target of deployment %s waits for what could be %s", w.Deployment, spoken[w.Verb].past)
	case len(waiting) > 1:
		return none, refuse("%d targets of deployment %s wait for that; name one", len(waiting), w.Deployment)
	}
	return waiting[0], nil
}

func (w Word) about(wait rollout.Wait) bool {
	return slices.Contains(spoken[w.Verb].kinds, wait.Kind) && (w.Gate == "" || w.Gate == wait.Gate)
}

// gates is what of a target a word is about, when the person may say it: the one that is named, else all that the person may speak to.
func (w Word) gates(t rollout.Target) (gates []string, err error) {
	for _, wait := range t.Waits {
		if !w.about(wait) {
			continue
		}
		if why := w.forbidden(t, wait); why != nil {
			err = why
			continue
		}
		gates = append(gates, wait.Gate)
	}
	switch {
	case len(gates) > 0:
		return gates, nil
	case err != nil:
		return nil, err
	case w.Gate != "":
		return nil, refuse("target %s of deployment %s does not wait at %s for what could be %s: it is %s", t.Name, t.Deployment, w.Gate, spoken[w.Verb].past, t.State)
	}
	return nil, refuse("target %s of deployment %s waits for nothing that could be %s: it is %s", t.Name, t.Deployment, spoken[w.Verb].past, t.State)
}

// forbidden is why a person may not speak to a wait; nil: they may.
func (w Word) forbidden(t rollout.Target, wait rollout.Wait) error {
	if wait.Kind != rollout.WaitApproval {
		return nil
	}
	if !w.Admin && len(wait.Who) > 0 && !slices.ContainsFunc(w.Roles, func(role string) bool {
		return slices.ContainsFunc(wait.Who, func(who string) bool { return strings.EqualFold(role, who) })
	}) {
		held := "no role"
		if len(w.Roles) > 0 {
			held = strings.Join(w.Roles, ", ")
		}
		return refuse("%s of target %s needs one of the roles %s; %s holds %s", wait.Gate, t.Name, strings.Join(wait.Who, ", "), w.By, held)
	}
	if w.Verb != rollout.Reject && slices.Contains(wait.NotBy, w.By) {
		return refuse("%s of target %s may not be given by %s, whose own change it is (allowSelfApproval: false)", wait.Gate, t.Name, w.By)
	}
	return nil
}

func (tx *tx) words(ctx context.Context, deployment string) ([]rollout.Word, error) {
	rows, err := tx.query(ctx, `SELECT target, gate, digest, verb, who, reason, at FROM words WHERE deployment_id = ? ORDER BY id`, deployment)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var words []rollout.Word
	for rows.Next() {
		var w rollout.Word
		var at int64
		if err := rows.Scan(&w.Target, &w.Gate, &w.Digest, &w.Verb, &w.By, &w.Reason, &at); err != nil {
			return nil, err
		}
		w.At = fromMicros(at)
		words = append(words, w)
	}
	return words, rows.Err()
}
