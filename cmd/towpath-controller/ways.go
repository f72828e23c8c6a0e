package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"towpath/agent/hub"
	"towpath/api"
	"towpath/reconcile/rollout"
	"towpath/store"
)

// way is how things stand between the controller and a cluster; why is empty where nothing is wrong.
type way struct {
	since time.Time
	why   string
}

// String is the way as a phrase; empty where nothing is wrong.
func (w way) String() string {
	if w.why == "" || w.since.IsZero() {
		return w.why
	}
	return fmt.Sprintf("since %s: %s", w.since.UTC().Format("2006-01-02 15:04 UTC"), w.why)
}

// wayTo says why requests to an agent's cluster come to nothing, or would: the agent is away, its cluster was not recognized, or the cluster fails.
func (m *Main) wayTo(a store.Agent, sessions []hub.Status) way {
	switch first, connected := sessionOf(a, sessions); {
	case connected && first.Draining:
		return way{why: "it stops, and takes no new requests"}
	case connected && first.Held:
		return way{first.Since, "it is connected, and carries nothing until its cluster has said who it is"}
	case connected:
		since, why := m.clusters.client(a.Tenant, a.Name).Trouble()
		return way{since, why}
	case !a.Away.IsZero():
		return way{a.Away, a.AwayWhy}
	case !a.Connected.IsZero():
		return way{m.began, "it has not come back since the controller started"}
	}
	return way{a.Created, "it has never connected"}
}

// sessionOf is a session of an agent, one that carries requests before one that is held or drains.
func sessionOf(a store.Agent, sessions []hub.Status) (s hub.Status, found bool) {
	for _, other := range sessions {
		if other.Tenant == a.Tenant && other.Agent == a.Name && (!found || idle(s) && !idle(other)) {
			s, found = other, true
		}
	}
	return s, found
}

// idle reports whether a session carries no new requests.
func idle(s hub.Status) bool { return s.Held || s.Draining }

// ways gives the way to each account of a tenant, in words. It asks the store once, when it is first called.
func (b *backend) ways(ctx context.Context, tenant string) func(account string) string {
	var known []store.Agent
	var sessions []hub.Status
	asked, failed := false, false
	return func(account string) string {
		if !asked {
			asked = true
			var err error
			if known, err = b.store.Agents(ctx, tenant); err == nil {
				sessions, err = b.sessions(ctx, tenant)
			}
			if err != nil {
				failed = true
				b.log.WithError(err).Error("why agents are away could not be read")
			}
		}
		i := slices.IndexFunc(known, func(a store.Agent) bool { return a.Name == account })
		if failed {
			return ""
		}
		if i < 0 {
			return "no agent of this name was ever made: towpath agent create " + account
		}
		return b.wayTo(known[i], sessions).String()
	}
}

// waits are shown with the reason where they are for an agent.
func waits(all []rollout.Wait, account string, ways func(account string) string) []api.Wait {
	var out []api.Wait
	for _, w := range all {
		shown := api.Wait{Kind: string(w.Kind), Since: w.Since, Until: moment(w.Until), Needs: w.Needs, Gate: w.Gate, Who: w.Who, NotBy: w.NotBy, Command: w.Command}
		if w.Kind == rollout.WaitAgent {
			shown.Why = ways(account)
		}
		out = append(out, shown)
	}
	return out
}
