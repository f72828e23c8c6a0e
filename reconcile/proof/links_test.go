package proof_test

import (
	"context"
	"time"

	"towpath/reconcile/rollout"
)

// made holds that a step makes the link to each of its Services once, whoever died meanwhile.
func (j *judge) made(w *watched, t rollout.Target, links []rollout.Link) {
	for _, l := range links {
		name := stepOf(t.Deployment, t.Name, l.Gate) + " " + l.Service
		if j.links[name] {
			j.wrongly("%s of #%d makes the link of %s to %s a second time", w.name, t.Number, l.Gate, l.Service)
		}
		j.links[name] = true
	}
}

// unmade is the first Service of a step that has no link; "": each has one.
func (j *judge) unmade(t rollout.Target, gate string, e rollout.Expose) string {
	for _, service := range e.Services {
		if !j.links[stepOf(t.Deployment, t.Name, gate)+" "+service] {
			return service
		}
	}
	return ""
}

// linked holds that whoever is called is told of each link that lasts.
func (o *outside) linked(a rollout.Asked) {
	t := a.Target
	all, err := o.house.store.Previews(context.Background(), t.Tenant, t.Deployment)
	o.house.must(err)
	for _, p := range all {
		if p.Target == t.Name && p.Holds(o.house.Now()) && a.Links[p.Link.Service] == "" {
			o.house.wrongly("%s of #%d is not told of the link to %s", a.Gate, t.Number, p.Link.Service)
		}
	}
}

// inside is a step of a strategy: what may stand anywhere, or one that makes links.
func (s *story) inside() rollout.Step {
	if !s.happens(15) {
		return s.wait()
	}
	services := []string{"web", "preview"}
	return rollout.Step{Expose: &rollout.Expose{Services: services[:1+s.r.IntN(2)], TTL: s.between(time.Minute, 24*time.Hour)}}
}
