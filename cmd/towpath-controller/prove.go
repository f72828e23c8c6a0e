package main

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"towpath/cmd/towpath-controller/config"
	"towpath/gitsource"
)

const (
	proveEach  = time.Hour
	proveShare = 0.01 // of all renders, made from nothing each time
)

// proofs count what was held against its files, and what was not as it should be: an operator is alarmed when that is ever above 0.
type proofs struct {
	rendered, wrong prometheus.Counter
}

func newProofs() proofs {
	return proofs{
		rendered: prometheus.NewCounter(prometheus.CounterOpts{Name: "towpath_renders_proved_total", Help: "Renders that were made from nothing to be compared with what is recorded."}),
		wrong:    prometheus.NewCounter(prometheus.CounterOpts{Name: "towpath_renders_wrong_total", Help: "Recorded renders that were not what their files come to; anything above 0 is a fault of Towpath."}),
	}
}

// prove holds what is recorded against the repositories, at the start and each hour.
func (m *Main) prove(ctx context.Context) {
	for {
		m.mu.Lock()
		sources, people := make([]*source, 0, len(m.sources)), m.people
		for _, s := range m.sources {
			sources = append(sources, s)
		}
		m.mu.Unlock()
		for _, s := range sources {
			m.proveSource(ctx, s, people)
		}
		if !m.sleepUntil(time.Now().Add(proveEach)) {
			return
		}
	}
}

func (m *Main) proveSource(ctx context.Context, s *source, people []config.Role) {
	log := m.log.WithField("source", s.config.Name)
	proof, err := m.intake.Prove(ctx, s.source(people), proveShare)
	m.proofs.rendered.Add(float64(proof.Rendered))
	m.proofs.wrong.Add(float64(len(proof.Wrong)))
	for _, d := range proof.Wrong {
		log.WithFields(logrus.Fields{"path": d.Path, "target": d.Target}).Errorf("a recorded render was wrong, and its target is planned anew: %s; please report this", d.Why)
	}
	switch {
	case err == nil, ctx.Err() != nil, errors.Is(err, gitsource.ErrUnknownCommit): // of a mirror that is lost, all is looked at with the next fetch
	default:
		log.WithError(err).Error("what is recorded could not be held against the repository; trying again in an hour")
	}
}
