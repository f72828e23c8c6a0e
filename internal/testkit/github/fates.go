package github

// Fate is what becomes of a delivery on its way to an App.
type Fate int

// The fates of deliveries.
const (
	Arrives Fate = iota
	Lost         // GitHub lists it as failed, and can send it again
	Unsent       // GitHub itself knows nothing of it
	Doubled      // it arrives twice
	Late         // it arrives after the next one; without a next one, never
)

// NextDeliveries decides what becomes of the next deliveries, in their order; those that are sent again arrive.
func (g *GitHub) NextDeliveries(fates ...Fate) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fates = append(g.fates, fates...)
}

// meet takes a delivery to its fate, and returns the status of the answer: 0, none came.
func (g *GitHub) meet(a *app, d *delivery) (status int) {
	g.mu.Lock()
	fate := Arrives
	if len(g.fates) > 0 {
		fate, g.fates = g.fates[0], g.fates[1:]
	}
	late := g.late
	switch fate {
	case Late:
		g.late = append(g.late, func() { g.deliver(a, d) })
		late = nil
	case Unsent:
		late = nil
	default:
		g.late = nil
	}
	g.mu.Unlock()
	switch fate {
	case Late, Unsent:
	case Lost:
		g.record(a, d, 0)
	case Doubled:
		again := *d
		g.deliver(a, &again)
		fallthrough
	default:
		status = g.deliver(a, d)
	}
	for _, deliver := range late {
		deliver()
	}
	return status
}
