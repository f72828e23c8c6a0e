package gitsource_test

import (
	"fmt"
	"strings"
	"testing"

	"towpath/gitsource"
	"towpath/internal/testkit/gitserver"
)

// A pull request of two commits is merged onto a branch that went on meanwhile.
func TestThePeopleOfAChangeAreThoseOfAllItsCommits(t *testing.T) {
	t.Parallel()
	repo := gitserver.NewRepo(t, t.TempDir(), "config", gitserver.Files{"a": "1"})
	var stream strings.Builder
	commit := func(mark, at int, author, committer string, parents ...string) {
		fmt.Fprintf(&stream, "commit refs/heads/main\nmark :%d\nauthor %s <%s@example.com> %d +0000\ncommitter %s <%s@example.com> %d +0000\ndata 1\nx\n",
			mark, author, strings.ToLower(author), at, committer, strings.ToLower(committer), at)
		for i, parent := range parents {
			fmt.Fprintf(&stream, "%s %s\n", []string{"from", "merge"}[i], parent)
		}
		fmt.Fprintf(&stream, "M 100644 inline f%d\ndata 1\nx\n", mark)
	}
	commit(1, 1800000000, "Root", "Root", repo.Head("main"))
	commit(2, 1800000100, "Bob", "Carl", ":1") // of the pull request,
	commit(3, 1700000000, "BOB", "Dora", ":2") // made on a machine whose clock is years behind
	commit(4, 1800000200, "Eve", "Eve", ":1")  // shipped before
	commit(5, 1800000300, "Ann", "GitHub", ":4", ":3")
	stream.WriteString("reset refs/heads/shipped\nfrom :4\n\nreset refs/heads/lonely\nfrom :1\n\ndone\n")
	repo.GitInput([]byte(stream.String()), "fast-import", "--quiet", "--force")
	m := open(t, gitsource.Config{URL: repo.Dir})
	merged := fetch(t, m).Commit
	people := func(older string) string {
		t.Helper()
		all, err := m.People(older, merged)
		ok(t, err)
		var names []string
		for _, who := range all {
			names = append(names, who.Name)
		}
		return strings.Join(names, " ")
	}
	equal(t, people(repo.Head("shipped")), "Ann GitHub BOB Dora Carl")
	equal(t, people(repo.Git("rev-parse", merged+"^2^")), "Ann GitHub Eve BOB Dora")
	equal(t, people(merged), "Ann GitHub")
	equal(t, people(""), "Ann GitHub")
	equal(t, people(strings.Repeat("a", 40)), "Ann GitHub")
	_, err := m.People(merged, strings.Repeat("a", 40))
	if err == nil || !strings.Contains(err.Error(), "is not a commit of this repository") {
		t.Errorf("an unknown commit: %v", err)
	}
}
