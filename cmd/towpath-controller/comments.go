package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"towpath/cmd/towpath-controller/config"
	"towpath/reconcile/rollout"
	"towpath/status"
)

const (
	// answerTakes bounds the answer to one comment, claimAnswers how long nobody else answers after a process died while it did.
	answerTakes  = 90 * time.Second
	claimAnswers = 2 * time.Minute
)

// beside are the sources whose pull requests are those of a source, by name: one repository feeds them all.
func (m *Main) beside(s config.Source) (all []config.Source) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, other := range m.sources {
		if c := other.config; c.Plans() && strings.EqualFold(c.GitHub.Repository, s.GitHub.Repository) && c.GitHub.App == s.GitHub.App && c.GitHub.APIURL == s.GitHub.APIURL {
			all = append(all, c)
		}
	}
	slices.SortFunc(all, func(a, b config.Source) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// comments is a comment that was heard of below the pull requests of some sources: once for each repository, since the first of its sources answers for all of them.
func (m *Main) comments(of []config.Source, heard status.Heard) (all []rollout.Comment) {
	for _, s := range of {
		beside := m.beside(s)
		if len(beside) == 0 {
			continue
		}
		first := rollout.ProposalName{Tenant: beside[0].Tenant, Source: beside[0].Name, Pull: heard.Pull}
		c := rollout.Comment{Pull: first, ID: heard.Comment, Sum: heard.CommentSum}
		if !slices.Contains(all, c) {
			all = append(all, c)
		}
	}
	return all
}

// hear answers the comments below a pull request, in order, as far as their time has come.
func (m *Main) hear(ctx context.Context, subject string) error {
	for ctx.Err() == nil {
		c, err := m.store.ClaimComment(ctx, subject, claimAnswers)
		if err != nil || c == nil {
			return err
		}
		if err := m.answer(ctx, *c); err != nil {
			return err
		}
	}
	return nil
}

// answer answers one comment, or has it tried again later. Its error is the store's.
func (m *Main) answer(ctx context.Context, c rollout.Comment) error {
	keep := context.WithoutCancel(ctx) // what was done is recorded
	l := m.listener(c.Pull.Source)
	if l == nil {
		return m.store.AnswerComment(keep, c, rollout.Reply{})
	}
	limited, cancel := context.WithTimeout(ctx, answerTakes)
	defer cancel()
	reply, err := l.Answer(limited, c)
	var failed *status.Failure
	switch {
	case err == nil:
		return m.store.AnswerComment(keep, c, reply)
	case errors.As(err, &failed) && (failed.Kind == status.Refused || failed.Kind == status.Unfit):
		m.log.WithError(err).WithField("source", c.Pull.Source).WithField("pull", c.Pull.Pull).Warn("a comment cannot be read; what it may ask for is not done")
		return m.store.AnswerComment(keep, c, rollout.Reply{})
	}
	at := time.Now().Add(min(10*time.Second<<min(c.Tries, 6), 5*time.Minute))
	if failed != nil && failed.Until.After(at) {
		at = failed.Until
	}
	if ctx.Err() == nil {
		m.log.WithError(err).WithField("source", c.Pull.Source).WithField("pull", c.Pull.Pull).Warnf("a comment could not be answered; trying again at %s", at.UTC().Format(time.TimeOnly))
	}
	return m.store.AnswerLater(keep, c, at)
}

// listener answers below the pull requests of a source; nil: nobody does any more.
func (m *Main) listener(name string) *status.Listener {
	m.mu.Lock()
	s, people, forge := m.sources[name], m.people, m.forges[name]
	m.mu.Unlock()
	if s == nil || forge == nil || !s.config.Plans() {
		return nil
	}
	l := &status.Listener{Forge: forge, Acts: m.store, Repository: s.config.GitHub.Repository, Clock: time.Now}
	for _, r := range people {
		l.Roles = append(l.Roles, status.Role{Name: r.Name, Teams: r.GitHubTeams, Users: r.GitHubUsers})
	}
	for _, c := range m.beside(s.config) {
		m.mu.Lock()
		open := m.sources[c.Name]
		m.mu.Unlock()
		if open == nil {
			continue
		}
		if head, known := open.mirror.Head(); known {
			l.Places = append(l.Places, status.Place{Tenant: c.Tenant, Source: c.Name, Branch: head.Branch})
		}
	}
	return l
}

// followComments has comments answered that could not be at first, or that a process left that died.
func (m *Main) followComments(ctx context.Context) {
	each := time.NewTicker(10 * time.Second)
	defer each.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-each.C:
			if err := m.store.WakeComments(ctx); err != nil && ctx.Err() == nil {
				m.log.WithError(err).Warn("comments that wait for an answer could not be looked for; trying again in ten seconds")
			}
		}
	}
}
