package github

import (
	"fmt"
	"maps"
)

// Group is what a merge queue tries together: its head is what the base becomes if all goes well.
type Group struct {
	Pull                               int
	HeadSHA, HeadRef, BaseSHA, BaseRef string // the references by their whole names
}

// QueuePull puts a pull request into the merge queue as a person does: Git gets the branch of the group, and its checks are asked for.
func (g *GitHub) QueuePull(name string, number int, login string) (group Group) {
	g.t.Helper()
	g.act(func() {
		r, by := g.find(name), g.person(login)
		p := r.pull(number)
		sha, err := g.merge(r, p, login)
		if err != nil {
			g.t.Errorf("queueing pull request %d of %s: %v", number, name, err)
			return
		}
		base := "refs/heads/" + p.Base.Ref
		group = Group{Pull: number, HeadSHA: sha, BaseSHA: r.at(base), BaseRef: base}
		group.HeadRef = fmt.Sprintf("refs/heads/gh-readonly-queue/%s/pr-%d-%s", p.Base.Ref, number, group.BaseSHA)
		if err := r.set(group.HeadRef, sha); err != nil {
			g.t.Error(err)
		}
		g.pullHappened(r, p, "enqueued", by, nil)
		g.pushed(r, group.HeadRef, "", sha, by)
		g.groupHappened(r, group, "checks_requested", by, nil)
	})
	return group
}

// EndGroup ends a group of the merge queue. reason: merged, when all went well, and the base becomes its head; invalidated, dequeued.
func (g *GitHub) EndGroup(name string, group Group, reason string) {
	g.t.Helper()
	g.act(func() {
		r := g.find(name)
		p := r.pull(group.Pull)
		by := g.person(p.Author)
		if reason == "merged" {
			g.finish(r, p, group.BaseSHA, group.HeadSHA, by)
		} else {
			g.pullHappened(r, p, "dequeued", by, object{"reason": "CI_FAILURE"})
		}
		if err := r.remove(group.HeadRef); err != nil {
			g.t.Error(err)
		}
		g.pushed(r, group.HeadRef, group.HeadSHA, "", by)
		g.groupHappened(r, group, "destroyed", by, object{"reason": reason})
	})
}

func (g *GitHub) groupHappened(r *repository, group Group, action string, by *account, more object) {
	said := object{"action": action, "merge_group": object{"head_sha": group.HeadSHA, "head_ref": group.HeadRef, "base_sha": group.BaseSHA, "base_ref": group.BaseRef,
		"head_commit": g.commitOfEvent(r, group.HeadSHA)}}
	maps.Copy(said, more)
	g.happened(r, nil, "merge_group", by, said)
}
