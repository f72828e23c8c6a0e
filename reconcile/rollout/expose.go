package rollout

import (
	"fmt"
	"slices"
	"time"

	"towpath/manifest"
)

// Expose is a step that makes a temporary link to each of its Services, and passes at once.
type Expose struct {
	Services []string      `json:"services"`
	TTL      time.Duration `json:"ttl"`
}

// Link is a temporary public address of a Service. It is recorded with the decision that makes it, and known by target, gate and Service: the store gives it
// the random part of its address.
type Link struct {
	Gate      string    `json:"gate"`
	Service   string    `json:"service"`
	Namespace string    `json:"namespace"`
	Port      int32     `json:"port"`
	TLS       bool      `json:"tls,omitempty"` // the Service speaks TLS at this port
	Made      time.Time `json:"made"`
	Until     time.Time `json:"until"`
}

// Port is one port of a Service.
type Port struct {
	Name     string // "" where there is only one
	Protocol string // TCP, UDP, SCTP
	Speaks   string // appProtocol; "": it does not say
	Number   int32
}

// tls reports whether a port says that it speaks TLS.
func (p Port) tls() bool { return p.Number == 443 || p.Name == "https" || p.Speaks == "https" }

// Exposes reports whether any step of a way makes links.
func (w Way) Exposes() bool {
	return slices.ContainsFunc(w.steps(), func(s Step) bool { return s.Expose != nil })
}

// Exposed is the Services that steps of a way make links to, in the target's namespace, else in that of its workloads; none where neither is known.
func (w Way) Exposed(namespace string, set Set) (keys []manifest.Key) {
	for _, s := range w.steps() {
		if s.Expose != nil {
			keys = append(keys, s.Expose.in(namespace, set)...)
		}
	}
	return keys
}

// in is the Services of a step, each once.
func (e Expose) in(namespace string, set Set) (keys []manifest.Key) {
	if namespace == "" && len(set.Revisions) == 0 {
		return nil
	}
	for _, name := range e.Services {
		if key := service(name, namespace, set); !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// expose makes the links of a step, once each of its Services was read and found to be one that a link can lead to.
func (d *decision) expose(v *verdict, gate string, e Expose) {
	if slices.ContainsFunc(d.f.Links, func(l Link) bool { return l.Gate == gate }) {
		return
	}
	keys := e.in(d.Target.Namespace, d.f.New)
	live, read := d.others(keys)
	switch {
	case keys == nil:
		v.fail(gate+": the target has no namespace of its own and no workload, so there is no place to look for the Services of exposeServices", false)
		return
	case d.f.Look != nil && d.f.Look.Failure != nil:
		v.unread = d.f.Look.Failure
		return
	case !read:
		v.read = append(v.read, keys...)
		return
	}
	links := make([]Link, len(live))
	for i, l := range live {
		port, why := single(l)
		if why != "" {
			v.fail(fmt.Sprintf("%s: %s", gate, why), false)
			return
		}
		links[i] = Link{gate, l.Key.Name, l.Key.Namespace, port.Number, port.tls(), d.f.Now, d.f.Now.Add(e.TTL)}
	}
	v.exposes = append(v.exposes, links...)
}

// others is what a read of keys showed; false: they were not read.
func (d *decision) others(keys []manifest.Key) (live []Live, read bool) {
	if d.f.Look == nil {
		return nil, false
	}
	for _, key := range keys {
		i := slices.IndexFunc(d.f.Look.Others, func(l Live) bool { return l.Key == key })
		if i < 0 {
			return nil, false
		}
		live = append(live, d.f.Look.Others[i])
	}
	return live, true
}

// single is the only port of a Service, or why no link can lead to it.
func single(l Live) (port Port, why string) {
	switch {
	case l.Missing:
		return port, fmt.Sprintf("%s, which exposeServices names, is not in the cluster", l.Key)
	case len(l.Ports) != 1:
		return port, fmt.Sprintf("%s has %d ports; a preview link leads to a Service with a single HTTP port", l.Key, len(l.Ports))
	case l.Ports[0].Protocol != "TCP":
		return port, fmt.Sprintf("the port of %s is %s; a preview link leads to a Service with a single HTTP port", l.Key, l.Ports[0].Protocol)
	}
	return l.Ports[0], ""
}

// looks carries out what steps that make links need, before any of them counts as passed; false: there is nothing of that kind.
func (d *decision) looks(v verdict) bool {
	switch {
	case v.unread != nil:
		if d.Target.Attempts == 0 {
			d.Target.Deadline = d.f.Now.Add(d.Target.Timeout)
		}
		d.failed(v.unread, func() { d.give(v.unread.Error()) })
	case len(v.read) > 0:
		d.Read = &Read{Others: v.read}
	case len(v.exposes) > 0:
		for _, l := range v.exposes {
			d.say("target.exposed", fmt.Sprintf("%s: Service %s has a preview link until %s", d.Target.Name, l.Service, l.Until.UTC().Format("2006-01-02 15:04 UTC")), "")
		}
		d.Exposes, d.Changed = v.exposes, true
		if len(v.waits) > 0 {
			d.waitingFor(v)
		}
	default:
		return false
	}
	return true
}
