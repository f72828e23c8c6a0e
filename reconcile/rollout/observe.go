package rollout

import (
	"fmt"
	"slices"
	"strings"

	"towpath/manifest"
)

// gateFound is the gate at which a target waits that was found to differ from its manifests after the store was lost.
const gateFound = "found"

// mostDiffers is how many differences of a target are kept.
const mostDiffers = 20

// observe reads what runs of a target about which nothing is known any more.
func (d *decision) observe() {
	t := &d.Target
	if d.f.Look == nil {
		d.Read = d.first()
		d.Read.Foreign, d.Read.Routes = false, nil
		return
	}
	if failure := d.f.Look.Failure; failure != nil {
		d.failed(failure, func() { d.unseen(failure) })
		return
	}
	d.stand()
	t.Differs = d.standing()
	t.Ran, t.RanNumber = d.ran()
	if why := d.pair(); why != "" {
		t.Differs = append(t.Differs, why)
	}
	d.enter(Comparing, Running)
}

// standing is a sentence for each revision, and each Deployment object, that the manifests alone would not have left.
func (d *decision) standing() (sentences []string) {
	t := &d.Target
	for _, live := range d.f.Look.Workloads {
		if !live.Missing && (!t.KeepDeployment || live.Owner == "") {
			sentences = append(sentences, fmt.Sprintf("%s is there and not managed", live.Key))
		}
	}
	for _, live := range d.f.Look.Revisions {
		switch ours := d.f.New.has(live.Key); {
		case !ours && live.Replicas > 0:
			sentence := fmt.Sprintf("%s of #%d%s has pods: %d", live.Key, live.Number, ofCommit(live.Commit), live.Replicas)
			if live.Commit != "" && live.Commit == t.Commit {
				sentence += " (the same commit gives other names now: is keyFile another than before?)"
			}
			sentences = append(sentences, sentence)
		case ours && live.Health != Healthy:
			sentences = append(sentences, fmt.Sprintf("%s is not healthy: %s", live.Key, live.Message))
		}
	}
	slices.Sort(sentences)
	return sentences
}

// ran is the commit of the newest deployment that made a revision which carries its workload.
func (d *decision) ran() (commit string, number int) {
	var newest Live
	for _, live := range d.f.Look.Revisions {
		carries := d.f.New.has(live.Key) && live.Replicas > 0
		for _, f := range d.Target.Former {
			if f.Workload == live.Workload && f.Key.Namespace == live.Key.Namespace && f.Stable {
				carries = f.Key == live.Key
			}
		}
		if carries && live.Number >= newest.Number {
			newest = live
		}
	}
	return newest.Commit, newest.Number
}

// compare holds what runs against the manifests. What is as it shall be is good; everything else waits for a person.
func (d *decision) compare() {
	t := &d.Target
	if d.f.Look == nil {
		d.Read = &Read{Survey: true}
		return
	}
	look := d.f.Look
	if look.Failure != nil {
		d.failed(look.Failure, func() { d.unseen(look.Failure) })
		return
	}
	d.Claim, t.Differs = look.Claims, slices.Clone(t.Differs)
	nothing := len(look.Claims) == 0 && len(t.Differs) == 0 && len(d.f.New.Objects) > 0
	for _, drift := range look.Drifts {
		sentence := drift.Sentence()
		if whose := drift.Whose(); whose != "" {
			sentence += ", " + whose
		}
		t.Differs = append(t.Differs, sentence)
	}
	for _, key := range look.Claims {
		if !slices.Contains(d.f.New.Objects, key) {
			t.Differs = append(t.Differs, fmt.Sprintf("%s is no longer asked for", key))
		}
	}
	if more := len(t.Differs) - mostDiffers; more > 0 {
		t.Differs = append(t.Differs[:mostDiffers], fmt.Sprintf("and %d more differences", more))
	}
	if len(t.Differs) == 0 {
		d.proved()
		d.end(Succeeded, "it runs as it is asked for; nothing was touched")
		return
	}
	if look.Ran != nil && d.carries(look.RanSet) {
		d.Good = look.Ran
	}
	if nothing {
		t.Differs = []string{"nothing of it is there"}
	}
	d.say("target.differs", fmt.Sprintf("%s: it differs from what is asked for", t.Name), strings.Join(t.Differs, "; "))
	d.enter(Waiting, Queued)
}

// carries reports whether the revisions that were found to carry the workloads are those of a set.
func (d *decision) carries(set Set) bool {
	return !slices.ContainsFunc(d.Target.Former, func(f Former) bool { return f.Stable && !set.has(f.Key) })
}

// unseen leaves to a person what the cluster does not let be looked at.
func (d *decision) unseen(failure *Failure) {
	d.Target.Differs = []string{"it could not be compared: " + failure.Error()}
	d.enter(Waiting, Queued)
}

// found waits for a person's word on what was found.
func (d *decision) found() {
	t := &d.Target
	differs := strings.Join(t.Differs, "; ")
	if no := d.said(gateFound).rejected; no != nil {
		d.stays()
		d.end(Cancelled, fmt.Sprintf("left as it was found: %s rejected the change%s (%s)", no.By, because(no.Reason), differs))
		return
	}
	d.waiting(AwaitingApproval, Wait{Kind: WaitApproval, Gate: gateFound, Needs: "a person to approve that it becomes what is asked for; found was: " + differs,
		Command: d.command("approve")})
}

// stays makes what was found to carry the workloads that which the lane is held to.
func (d *decision) stays() {
	t := &d.Target
	t.Full, t.Pairs = nil, slices.Clone(t.Pairs)
	for _, f := range t.Former {
		if f.Stable {
			t.Full = append(t.Full, Replicas{f.Key, f.Count})
		}
	}
	for i, p := range t.Pairs {
		if p.Stable != "" {
			t.Pairs[i].New = p.Stable
		}
	}
}

func ofCommit(commit string) string {
	if commit == "" {
		return ""
	}
	return " (commit " + commit[:min(len(commit), 7)] + ")"
}

// Labelled is an object in a cluster whose labels say that it is ours.
type Labelled struct {
	Key                         manifest.Key // as manifests name it: for a revision the Deployment object's
	Lane                        string       // value of its label
	Tenant, Application, Target string
	Number                      int // of a revision: of the deployment that made it; of other objects 0
}
