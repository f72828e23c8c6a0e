package github

import (
	"fmt"
	"maps"
	"time"
)

// File is what a pull request does to a file.
type File struct {
	Name, Previous       string // Previous: when it is renamed
	Status               string // added, removed, modified, renamed; "": modified
	Additions, Deletions int
	Patch                string // "": too large, or no text
}

// Review is what somebody said of a pull request as a whole.
type Review struct {
	Author string
	State  string // APPROVED, CHANGES_REQUESTED, COMMENTED, DISMISSED
	Body   string
	SHA    string // "": of the head
	At     time.Time
}

// What GitHub lists of one pull request ends here, without a word.
const (
	maxFiles       = 3000
	maxPullCommits = 250
)

func listFiles(c *call) answer {
	r, p, refused := c.pullOf("read")
	if refused != nil {
		return *refused
	}
	files := r.filesOf(p)
	return list(c, files[:min(len(files), maxFiles)], func(f File) object { return c.g.file(r, p.Head.SHA, f) })
}

func (g *GitHub) file(r *repository, sha string, f File) object {
	o := object{"sha": nil, "filename": f.Name, "status": f.Status, "additions": f.Additions, "deletions": f.Deletions, "changes": f.Additions + f.Deletions,
		"blob_url": g.page(r, "/blob/"+sha+"/"+f.Name), "raw_url": g.page(r, "/raw/"+sha+"/"+f.Name), "contents_url": g.address(r, "/contents/"+f.Name+"?ref="+sha)}
	if f.Status == "" {
		o["status"] = "modified"
	}
	if f.Patch != "" {
		o["patch"] = f.Patch
	}
	if f.Previous != "" {
		o["previous_filename"] = f.Previous
	}
	return o
}

func listPullCommits(c *call) answer {
	r, p, refused := c.pullOf("read")
	if refused != nil {
		return *refused
	}
	commits := r.commitsOf(p)
	return list(c, commits[:min(len(commits), maxPullCommits)], func(sha string) object { return c.g.shownCommit(r, sha) })
}

func listReviews(c *call) answer {
	r, p, refused := c.pullOf("read")
	if refused != nil {
		return *refused
	}
	n := 0
	return list(c, p.Reviews, func(v Review) object {
		n++
		o := c.g.description.blank("pull-request-review", c.g.URL)
		sha := v.SHA
		if sha == "" {
			sha = p.Head.SHA
		}
		maps.Copy(o, object{"id": p.id*1000 + int64(n), "state": v.State, "body": v.Body, "commit_id": sha, "user": c.g.person(v.Author).user(c.g.URL), "author_association": "MEMBER",
			"pull_request_url": c.g.address(r, fmt.Sprint("/pulls/", p.Number))})
		if !v.At.IsZero() {
			o["submitted_at"] = timestamp(v.At)
		}
		return o
	})
}

// filesOf are those that a pull request touches.
func (r *repository) filesOf(p *Pull) []File {
	if p.Files != nil {
		return p.Files
	}
	return r.differences(span{p.Base.SHA, p.Head.SHA})
}

// commitsOf are those of a pull request, oldest first.
func (r *repository) commitsOf(p *Pull) []string {
	if p.Commits != nil {
		return p.Commits
	}
	if own := r.between(span{p.Base.SHA, p.Head.SHA}); own != nil {
		return own
	}
	return []string{p.Head.SHA}
}
