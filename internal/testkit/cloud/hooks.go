package cloud

import (
	"context"
	"slices"
	"time"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// Run is a hook that was made, and what came of it.
type Run struct {
	rollout.Hook
	Lane   string
	For    string // deployment and event
	Failed string // why it did not do its work; "": it did, or works
	Done   bool   // it did its work
	Works  bool   // its pods are there, though it may be on its way out
	There  bool   // its object is there and stays
}

// Runs is all hooks that were ever made, in their order.
func (c *Cluster) Runs() []*Run { return c.runs }

// RunHook implements reconcile.Cluster.
func (r *reach) RunHook(ctx context.Context, id rollout.Identity, objects []manifest.Object, a rollout.Action) rollout.Outcome {
	by, key, purpose := r.From(id), a.Only[0], id.Deployment+" "+a.Event
	hooks := r.Cloud.Names(objects).Hooks
	i := slices.IndexFunc(hooks, func(h rollout.Hook) bool { return h.Key == key })
	if i < 0 {
		return refused(key, "the manifests have no such hook")
	}
	for waited := time.Duration(0); ; {
		var former Object
		if failure := r.request(ctx, func() *rollout.Failure {
			former = Object{}
			if o := r.at.objects[key]; o != nil {
				former = *o
			}
			return nil
		}); failure != nil {
			return rollout.Outcome{Failure: failure}
		}
		switch {
		case former.UID == "":
			return r.makeHook(ctx, by, hooks[i], purpose, objects[0].Source)
		case former.Run == nil:
			return refused(key, "it belongs to somebody else")
		case former.Run.For == purpose:
			return rollout.Outcome{Live: []rollout.Live{former.Live}}
		case former.Run.There && !hooks[i].Goes("before-hook-creation"):
			return refused(key, "an earlier deployment made it")
		case former.Run.There:
			if failure := r.removeOne(ctx, by, key, "hook "+key.String(), former.UID); failure != nil {
				return rollout.Outcome{Failure: failure}
			}
		case waited > patience:
			return rollout.Outcome{Failure: &rollout.Failure{Class: rollout.Trouble, Object: key, Text: "the one that an earlier deployment made is still being removed, and gave no answer"}}
		default:
			r.Cloud.World.Sleep(time.Second)
			waited += time.Second
		}
	}
}

func refused(key manifest.Key, text string) rollout.Outcome {
	return rollout.Outcome{Failure: &rollout.Failure{Class: rollout.Refused, Object: key, Text: text}}
}

// makeHook makes a hook, which works for a while.
func (r *reach) makeHook(ctx context.Context, by Request, hook rollout.Hook, purpose, from string) (out rollout.Outcome) {
	out.Failure = r.write(ctx, "hook "+hook.Key.String(), func() *rollout.Failure {
		if r.at.objects[hook.Key] != nil {
			return &rollout.Failure{Class: rollout.Trouble, Object: hook.Key, Text: "somebody changed it between the read and the write"}
		}
		r.Cloud.tell(Change{Request: by, Cluster: r.at, Kind: "hook", Key: hook.Key, Was: purpose})
		o := r.at.put(hook.Key)
		o.Owner, o.From = by.Lane, from
		o.Run = &Run{Hook: hook, Lane: by.Lane, For: purpose, There: true}
		r.at.runs = append(r.at.runs, o.Run)
		if hook.Key.Kind != "Job" {
			o.Run.Done = true
			out.Live = []rollout.Live{o.Live}
			return nil
		}
		o.Run.Works, o.Health, o.Message = true, rollout.Progressing, "it runs"
		out.Live = []rollout.Live{o.Live}
		if fate := r.at.pods[FateOf(hook.Key, from)]; fate.Never == "" {
			r.Cloud.World.After(fate.After+r.Cloud.delay(200), func() { r.at.worked(o, fate.Breaks) })
		}
		return nil
	})
	if out.Failure != nil {
		out.Live = nil
	}
	return out
}

// worked ends the work of a hook, unless somebody ended it before.
func (c *Cluster) worked(o *Object, fails string) {
	if !o.Run.Works || !o.Run.There {
		return
	}
	o.Run.Works, o.Run.Done, o.Run.Failed = false, fails == "", fails
	if o.Health, o.Message = rollout.Healthy, ""; fails != "" {
		o.Health, o.Message = rollout.Broken, fails
	}
	c.happened(o.Run.Lane)
}

// dismiss takes an object away. A hook that works is there until its pods are gone.
func (c *Cluster) dismiss(o *Object) {
	gone := func() {
		if c.objects[o.Key] == o {
			delete(c.objects, o.Key)
		}
	}
	if o.Run == nil {
		gone()
		return
	}
	if o.Run.There = false; !o.Run.Works {
		gone()
		return
	}
	o.Health, o.Message = rollout.Progressing, "it is being removed"
	c.cloud.World.After(c.cloud.within(30*time.Second), func() {
		o.Run.Works = false
		gone()
		c.happened(o.Run.Lane)
	})
}
