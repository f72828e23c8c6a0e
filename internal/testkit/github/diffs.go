package github

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	gitobject "github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/utils/merkletrie"
)

// span is from one commit to another.
type span struct{ base, head string }

// mergeBase is the newest commit that both ends of a span come from; nil: Git holds none.
func (r *repository) mergeBase(s span) *gitobject.Commit {
	base, head := r.object(s.base), r.object(s.head)
	if base == nil || head == nil {
		return nil
	}
	found, err := base.MergeBase(head)
	if err != nil || len(found) == 0 {
		return nil
	}
	return found[0]
}

// between are the commits of the head that the base lacks, oldest first.
func (r *repository) between(s span) (shas []string) {
	base, head := r.object(s.base), r.object(s.head)
	if base == nil || head == nil {
		return nil
	}
	old := map[plumbing.Hash]bool{}
	for before := gitobject.NewCommitPreorderIter(base, nil, nil); ; {
		c, err := before.Next()
		if err != nil { // io.EOF: Git's own objects break only by a test's mistake
			break
		}
		old[c.Hash] = true
	}
	for own := gitobject.NewCommitPreorderIter(head, old, nil); ; {
		c, err := own.Next()
		if err != nil {
			break
		}
		shas = append(shas, c.Hash.String())
	}
	slices.Reverse(shas)
	return shas
}

// differences are the files in which the head of a span differs from where it left the base, in the order of their names.
func (r *repository) differences(s span) []File {
	if files, done := r.diffs[s]; done {
		return files
	}
	from, head := r.mergeBase(s), r.object(s.head)
	if from == nil {
		return nil
	}
	old, err := from.Tree()
	if err != nil {
		return nil
	}
	tree, err := head.Tree()
	if err != nil {
		return nil
	}
	changes, err := gitobject.DiffTree(old, tree)
	if err != nil {
		return nil
	}
	var files []File
	for _, c := range changes {
		files = append(files, difference(c))
	}
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	r.diffs[s] = files
	return files
}

func difference(c *gitobject.Change) File {
	f := File{Name: c.To.Name, Status: "modified"}
	switch action, _ := c.Action(); {
	case action == merkletrie.Insert:
		f.Status = "added"
	case action == merkletrie.Delete:
		f.Name, f.Status = c.From.Name, "removed"
	case c.From.Name != c.To.Name:
		f.Previous, f.Status = c.From.Name, "renamed"
	}
	patch, err := c.Patch()
	if err != nil {
		return f // a submodule, of which there is no text
	}
	for _, s := range patch.Stats() {
		f.Additions, f.Deletions = f.Additions+s.Addition, f.Deletions+s.Deletion
	}
	if _, hunks, is := strings.Cut(patch.String(), "\n@@"); is {
		f.Patch = "@@" + strings.TrimSuffix(hunks, "\n")
	}
	return f
}

// What a comparison shows ends here.
const (
	maxCompared        = 300 // files
	maxComparedCommits = 250
)

func compare(c *call) answer {
	r, refused := c.repository("read", "contents")
	if refused != nil {
		return *refused
	}
	base, head, is := strings.Cut(c.vars["basehead"], "...")
	s := span{r.resolve(base), r.resolve(head)}
	from := r.mergeBase(s)
	if !is || from == nil {
		return notFound()
	}
	ahead, behind := r.between(s), r.between(span{s.head, s.base})
	status := "diverged"
	switch {
	case len(ahead) == 0 && len(behind) == 0:
		status = "identical"
	case len(behind) == 0:
		status = "ahead"
	case len(ahead) == 0:
		status = "behind"
	}
	// Without pages GitHub shows the newest commits; files stand on the first page only.
	files, commits := r.differences(s), ahead[max(0, len(ahead)-maxComparedCommits):]
	var header http.Header
	if query := c.request.URL.Query(); query.Has("page") || query.Has("per_page") {
		commits, header = page(c, ahead)
		if query.Has("page") && query.Get("page") != "1" {
			files = nil
		}
	}
	o := c.g.description.blank("commit-comparison", c.g.URL)
	shown := []object{}
	for _, f := range files[:min(len(files), maxCompared)] {
		shown = append(shown, c.g.file(r, s.head, f))
	}
	listed := []object{}
	for _, sha := range commits {
		listed = append(listed, c.g.shownCommit(r, sha))
	}
	maps.Copy(o, object{"status": status, "ahead_by": len(ahead), "behind_by": len(behind), "total_commits": len(ahead), "base_commit": c.g.shownCommit(r, s.base),
		"merge_base_commit": c.g.shownCommit(r, from.Hash.String()), "commits": listed, "files": shown})
	return answer{status: http.StatusOK, header: header, body: o}
}
