package hub

import (
	"context"
	"slices"
	"time"
)

// Directory is what hubs that serve the same agents know of each other. Safe for concurrent use.
type Directory interface {
	// Find lists the sessions of an agent at other hubs than the one that asks: admitted ones, of hubs that live.
	Find(ctx context.Context, tenant, agent string) ([]Place, error)
}

// Place is a session of an agent at another hub.
type Place struct {
	Session string // Status.Session there
	Address string // HOST:PORT of that hub, for peers
}

// findWithin bounds one look into the directory.
const findWithin = 5 * time.Second

// Moved says that agents came to other hubs or left them: what was found before counts no longer, and requests that wait look again.
func (h *Hub) Moved() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.moves++
	for k, a := range h.agents {
		a.places = nil
		select {
		case a.moved <- struct{}{}:
		default:
		}
		h.forget(k)
	}
}

// places is where else an agent is connected. What was found is remembered until Moved; that nothing was found is not.
func (h *Hub) places(ctx context.Context, k key) []Place {
	if h.peers == nil {
		return nil
	}
	h.mu.Lock()
	moves := h.moves
	if a := h.agents[k]; a != nil && len(a.places) > 0 {
		defer h.mu.Unlock()
		return slices.Clone(a.places)
	}
	h.mu.Unlock()
	found := h.find(ctx, k)
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(found) > 0 && moves == h.moves {
		h.group(k).places = slices.Clone(found)
	}
	return found
}

func (h *Hub) find(ctx context.Context, k key) []Place {
	within, cancel := context.WithTimeout(ctx, findWithin)
	defer cancel()
	found, err := h.peers.Directory.Find(within, k.tenant, k.agent)
	if err != nil && ctx.Err() == nil {
		h.log.WithError(err).WithField("agent", k.agent).Warn("at which replica the agent is connected could not be looked up")
	}
	return found
}

// lose forgets a place where an agent was looked for in vain.
func (h *Hub) lose(k key, p Place) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if a := h.agents[k]; a != nil {
		a.places = slices.DeleteFunc(a.places, func(other Place) bool { return other == p })
		h.forget(k)
	}
}

// elsewhere picks the place for a request: at the hub that carries the fewest of ours. It is called with mu held.
func (h *Hub) elsewhere(a *agent, w *waiter) (best Place, found bool) {
	if w.here || w.only != nil {
		return best, false
	}
	for _, p := range a.places {
		if !slices.Contains(w.avoid, p.Session) && (!found || h.peers.running[p.Address] < h.peers.running[best.Address]) {
			best, found = p, true
		}
	}
	return best, found
}

// seek begins to look for an agent at other hubs, once for all requests that wait for it; called with mu held.
func (h *Hub) seek(k key, a *agent) {
	if h.peers != nil && !a.seeking && a.wanted() {
		a.seeking = true
		h.tasks.Go(func() { h.look(k, a) })
	}
}

// wanted reports whether a request waits that another hub may carry; called with mu held.
func (a *agent) wanted() bool {
	return slices.ContainsFunc(a.waiters, func(w *waiter) bool { return !w.here && w.only == nil })
}

// missed reports whether such a request has no session here that it may use; called with mu held.
func (a *agent) missed() bool {
	return slices.ContainsFunc(a.waiters, func(w *waiter) bool { return !w.here && w.only == nil && !a.connected(w.avoid) })
}

// look looks for an agent at once, each Limits.Look and when others have moved, for as long as requests wait for it.
func (h *Hub) look(k key, a *agent) {
	again := time.NewTicker(h.limits.Look)
	defer again.Stop()
	for {
		h.mu.Lock()
		missed, moves := a.missed(), h.moves
		h.mu.Unlock()
		var found []Place
		if missed {
			found = h.find(h.life, k)
		}
		h.mu.Lock()
		if missed {
			a.places = found
			h.show(a)
			if moves != h.moves { // meanwhile
				a.places = nil
			}
		}
		if !a.wanted() || h.life.Err() != nil {
			a.seeking = false
			h.forget(k)
			h.mu.Unlock()
			return
		}
		h.mu.Unlock()
		select {
		case <-again.C:
		case <-a.moved:
		case <-h.life.Done():
		}
	}
}

// show gives the requests that wait the places that were found; called with mu held.
func (h *Hub) show(a *agent) {
	a.waiters = slices.DeleteFunc(a.waiters, func(w *waiter) bool {
		place, found := h.elsewhere(a, w)
		if !found || a.connected(w.avoid) {
			return false
		}
		w.got <- way{place: place}
		return true
	})
}
