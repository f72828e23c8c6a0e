package gitsource_test

import (
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"testing"

	"towpath/gitsource"
	"towpath/internal/testkit/gitserver"
)

// history makes commits of a mark each, with their parents' marks, and a reference to each: "refs/marks/N".
func history(repo *gitserver.Repo, commits ...[]int) {
	var stream strings.Builder
	for _, c := range commits {
		fmt.Fprintf(&stream, "reset refs/marks/%d\ncommit refs/marks/%d\nmark :%d\ncommitter A <a@example.com> %d +0000\ndata 1\nx\n", c[0], c[0], c[0], 1800000000+100*c[0])
		for i, parent := range c[1:] {
			fmt.Fprintf(&stream, "%s :%d\n", []string{"from", "merge"}[min(i, 1)], parent)
		}
		fmt.Fprintf(&stream, "M 100644 inline f%d\ndata 1\nx\n", c[0])
	}
	stream.WriteString("done\n")
	repo.GitInput([]byte(stream.String()), "fast-import", "--quiet", "--force")
}

func TestTheMergeBaseIsTheNewestCommitInCommon(t *testing.T) {
	t.Parallel()
	repo := gitserver.NewRepo(t, t.TempDir(), "config", gitserver.Files{"a": "1"})
	//   1 ── 2 ── 3 ── 6 ── 8      9 stands alone
	//    \         \  /
	//     4 ── 5 ── 7 (merges 3)
	history(repo, []int{1}, []int{2, 1}, []int{3, 2}, []int{4, 1}, []int{5, 4}, []int{7, 5, 3}, []int{6, 3, 5}, []int{8, 6}, []int{9})
	m := open(t, gitsource.Config{URL: repo.Dir})
	fetch(t, m)
	commits := map[int]string{}
	for mark := 1; mark <= 9; mark++ {
		commits[mark] = repo.Git("rev-parse", fmt.Sprintf("refs/marks/%d", mark))
		ok(t, m.FetchCommit(t.Context(), commits[mark]))
	}
	for _, c := range [][3]int{{3, 5, 1}, {5, 3, 1}, {8, 5, 5}, {3, 8, 3}, {8, 8, 8}, {2, 7, 2}, {1, 7, 1}} {
		base, err := m.MergeBase(commits[c[0]], commits[c[1]])
		ok(t, err)
		if base != commits[c[2]] {
			t.Errorf("%d and %d have %s in common, want %d, %s", c[0], c[1], base, c[2], commits[c[2]])
		}
	}
	if base, err := m.MergeBase(commits[8], commits[7]); err != nil || base != commits[3] && base != commits[5] { // both are as good
		t.Errorf("of two merges: %s, %v", base, err)
	}
	if base, err := m.MergeBase(commits[8], commits[9]); err != nil || base != "" {
		t.Errorf("without any: %s, %v", base, err)
	}
}

func TestAProposalIsFetchedBesideTheBranch(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	repo := gitserver.NewRepo(t, dir, "config", gitserver.Files{"a": "1"})
	main := repo.Head("main")
	server := gitserver.Serve(t, dir, gitserver.Options{TLS: true})
	m := open(t, gitsource.Config{URL: server.URL + "/config.git", HTTP: &http.Client{Transport: server.Transport(t)}})
	proposed := repo.CommitTo("topic", "propose", gitserver.Files{"a": "2"})
	repo.Git("update-ref", "refs/pull/7/head", proposed)
	repo.DeleteBranch("topic")
	ok(t, m.FetchCommit(t.Context(), proposed)) // the very first conversation
	tree, err := m.Tree(proposed)
	ok(t, err)
	text, err := fs.ReadFile(tree, "a")
	ok(t, err)
	equal(t, string(text), "2")
	equal(t, fetch(t, m).Commit, main)
	base, err := m.MergeBase(main, proposed)
	ok(t, err)
	equal(t, base, main)
	repo.Git("update-ref", "-d", "refs/pull/7/head")
	ok(t, m.FetchCommit(t.Context(), proposed)) // it is here
	fails(t, m.FetchCommit(t.Context(), strings.Repeat("a", 40)), gitsource.BranchMissing, false, "no branch or pull request is at aaaaaaaaaa any more")
	fails(t, m.FetchCommit(t.Context(), "refs/heads/main"), gitsource.Misconfigured, false, `"refs/heads/main" is no commit's id`)
}
