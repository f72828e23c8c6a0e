package github

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-github/v60/github"

	"towpath/internal/testkit/gitserver"
)

// versioned is a GitHub whose repository lies in Git, and an App that may change it.
func versioned(t testing.TB) (g *GitHub, repo *gitserver.Repo, client *github.Client) {
	g = New(t)
	repo = gitserver.NewRepo(t, t.TempDir(), "shop", gitserver.Files{"README.md": "hello\n", "deploy/web.yaml": "image: 1\n", "deploy/db/db.yaml": "image: 1\n"})
	g.Repository("acme/shop")
	g.Git("acme/shop", repo.Dir)
	return g, repo, install(t, g, 7, "towpath", Rights{"contents": "write", "pull_requests": "write", "deployments": "write"})
}

// branch makes a branch of a commit by the API, as a revert does, and returns the commit.
func branch(t testing.TB, client *github.Client, name, base string, entries []*github.TreeEntry) string {
	t.Helper()
	tree, _, err := client.Git.CreateTree(t.Context(), "acme", "shop", base, entries)
	ok(t, err)
	commit, _, err := client.Git.CreateCommit(t.Context(), "acme", "shop", &github.Commit{Message: pointer("revert"), Tree: &github.Tree{SHA: tree.SHA}, Parents: []*github.Commit{{SHA: &base}}}, nil)
	ok(t, err)
	_, _, err = client.Git.CreateRef(t.Context(), "acme", "shop", &github.Reference{Ref: pointer("refs/heads/" + name), Object: &github.GitObject{SHA: commit.SHA}})
	ok(t, err)
	return commit.GetSHA()
}

func blob(path, content string) *github.TreeEntry {
	return &github.TreeEntry{Path: &path, Mode: pointer("100644"), Type: pointer("blob"), Content: &content}
}

func gone(path string) *github.TreeEntry {
	return &github.TreeEntry{Path: &path, Mode: pointer("100644"), Type: pointer("blob")} // neither SHA nor Content: it is taken away
}

func TestABranchThatIsMadeByTheAPIIsThereForGit(t *testing.T) {
	t.Parallel()
	g, repo, client := versioned(t)
	e := listen(t, g, 7)
	base := repo.Head("main")
	made := branch(t, client, "towpath/revert-1", base, []*github.TreeEntry{blob("deploy/web.yaml", "image: 0\n"), blob("new/a/b.yaml", "x\n"), gone("deploy/db/db.yaml")})
	if head := repo.Head("towpath/revert-1"); head != made {
		t.Errorf("Git has it at %s, GitHub at %s", head, made)
	}
	if got := repo.Git("ls-tree", "-r", "--name-only", made); got != "README.md\ndeploy/web.yaml\nnew/a/b.yaml" {
		t.Errorf("it holds %q", got)
	}
	if got := repo.Git("show", made+":deploy/web.yaml"); got != "image: 0" {
		t.Errorf("the file holds %q", got)
	}
	if got := repo.Git("log", "-1", "--format=%an %cn %P", made); got != "towpath[bot] towpath[bot] "+base {
		t.Errorf("it was made as %q", got)
	}
	if got := repo.Git("fsck", "--strict"); strings.Contains(got, "error") {
		t.Errorf("Git says of it: %s", got)
	}
	p, _, err := client.PullRequests.Create(t.Context(), "acme", "shop", &github.NewPullRequest{Title: pointer("Revert"), Head: pointer("towpath/revert-1"), Base: pointer("main"), Body: pointer("why")})
	ok(t, err)
	files, _, err := client.PullRequests.ListFiles(t.Context(), "acme", "shop", p.GetNumber(), nil)
	ok(t, err)
	var got []string
	for _, f := range files {
		got = append(got, fmt.Sprintf("%s %s +%d-%d", f.GetStatus(), f.GetFilename(), f.GetAdditions(), f.GetDeletions()))
	}
	if want := []string{"removed deploy/db/db.yaml +0-1", "modified deploy/web.yaml +1-1", "added new/a/b.yaml +1-0"}; !slices.Equal(got, want) || files[1].GetPatch() != "@@ -1 +1 @@\n-image: 1\n+image: 0" {
		t.Errorf("its files are %q, the patch %q", got, files[1].GetPatch())
	}
	if p.GetUser().GetLogin() != "towpath[bot]" || p.GetHead().GetSHA() != made || p.GetBase().GetSHA() != base || repo.Git("rev-parse", "refs/pull/1/head") != made {
		t.Errorf("the pull request is %v", p)
	}
	var events []string
	for _, h := range e.take(g) {
		events = append(events, fmt.Sprintf("%T", h.event))
	}
	if slices.Sort(events); !slices.Equal(events, []string{"*github.PullRequestEvent", "*github.PushEvent"}) {
		t.Errorf("heard were %v", events)
	}
}

func TestAReferenceMovesForwardOrByForce(t *testing.T) {
	t.Parallel()
	_, repo, client := versioned(t)
	base := repo.Head("main")
	first := branch(t, client, "x", base, []*github.TreeEntry{blob("a", "1")})
	second := branch(t, client, "y", base, []*github.TreeEntry{blob("a", "2")})
	third := branch(t, client, "z", first, []*github.TreeEntry{blob("a", "3")})
	update := func(name, sha string, force bool) error {
		_, _, err := client.Git.UpdateRef(t.Context(), "acme", "shop", &github.Reference{Ref: pointer("refs/heads/" + name), Object: &github.GitObject{SHA: &sha}}, force)
		return err
	}
	expectRefused(t, update("x", second, false), 422, "Update is not a fast forward")
	ok(t, update("x", third, false))
	ok(t, update("x", second, true))
	expectRefused(t, update("nowhere", second, true), 422, "Reference does not exist")
	expectRefused(t, update("x", strings.Repeat("a", 40), true), 422, "Object does not exist")
	if head := repo.Head("x"); head != second {
		t.Errorf("it stands at %s", head)
	}
	_, _, err := client.Git.CreateRef(t.Context(), "acme", "shop", &github.Reference{Ref: pointer("refs/heads/x"), Object: &github.GitObject{SHA: &third}})
	expectRefused(t, err, 422, "Reference already exists")
	ref, _, err := client.Git.GetRef(t.Context(), "acme", "shop", "heads/x")
	ok(t, err)
	_, err = client.Git.DeleteRef(t.Context(), "acme", "shop", "heads/x")
	ok(t, err)
	_, _, err = client.Git.GetRef(t.Context(), "acme", "shop", "heads/x")
	expectRefused(t, err, 404, "Not Found")
	_, err = client.Git.DeleteRef(t.Context(), "acme", "shop", "heads/x")
	expectRefused(t, err, 422, "Reference does not exist")
	if ref.GetObject().GetSHA() != second || repo.Git("for-each-ref", "--format=%(refname)", "refs/heads") != "refs/heads/main\nrefs/heads/y\nrefs/heads/z" {
		t.Errorf("it was %v; left are %s", ref, repo.Git("for-each-ref"))
	}
}

func TestTreesThatGitHubRefuses(t *testing.T) {
	t.Parallel()
	_, repo, client := versioned(t)
	base := repo.Head("main")
	for name, c := range map[string]struct {
		entry  *github.TreeEntry
		status int
		says   string
	}{
		"a path out of it":                 {blob("../x", ""), 422, `tree.path "../x"`},
		"a path into Git":                  {blob("x/.git/config", ""), 422, `tree.path "x/.git/config"`},
		"a mode that is none":              {&github.TreeEntry{Path: pointer("x"), Mode: pointer("100666"), Content: pointer("")}, 422, "For 'properties/tree/properties/0/properties/mode'"},
		"an object that is not there":      {&github.TreeEntry{Path: pointer("x"), Mode: pointer("100644"), Type: pointer("blob"), SHA: pointer(strings.Repeat("a", 40))}, 422, "is not a valid blob"},
		"nothing that could be taken away": {gone("nowhere"), 422, "BadObjectState"},
		"a workflow":                       {blob(".github/workflows/x.yml", "on: push"), 403, "Resource not accessible by integration"},
	} {
		_, _, err := client.Git.CreateTree(t.Context(), "acme", "shop", base, []*github.TreeEntry{c.entry})
		if status, said := refused(t, err); status != c.status || !strings.Contains(said, c.says) {
			t.Errorf("%s: %d %s", name, status, said)
		}
	}
	_, _, err := client.Git.CreateTree(t.Context(), "acme", "shop", strings.Repeat("a", 40), []*github.TreeEntry{blob("x", "")})
	expectRefused(t, err, 404, "Not Found")
	_, _, err = client.Git.CreateCommit(t.Context(), "acme", "shop", &github.Commit{Message: pointer("x"), Tree: &github.Tree{SHA: pointer(strings.Repeat("a", 40))}}, nil)
	expectRefused(t, err, 422, "Tree SHA does not exist")
}

func TestPullRequestsThatGitHubRefuses(t *testing.T) {
	t.Parallel()
	g, repo, client := versioned(t)
	repo.CommitTo("bump", "bump", gitserver.Files{"deploy/web.yaml": "image: 2\n"})
	create := func(title, head, base string) error {
		_, _, err := client.PullRequests.Create(t.Context(), "acme", "shop", &github.NewPullRequest{Title: &title, Head: &head, Base: &base})
		return err
	}
	ok(t, create("bump", "bump", "main"))
	expectRefused(t, create("again", "acme:bump", "main"), 422, "A pull request already exists for acme:bump.")
	expectRefused(t, create("none", "main", "main"), 422, "No commits between main and main")
	expectRefused(t, create("x", "nowhere", "main"), 422, "head is invalid")
	expectRefused(t, create("x", "bump", "nowhere"), 422, "base is invalid")
	expectRefused(t, create("", "bump", "main"), 422, "title can't be blank")
	closed, _, err := client.PullRequests.Edit(t.Context(), "acme", "shop", 1, &github.PullRequest{State: pointer("closed"), Title: pointer("no bump")})
	ok(t, err)
	if closed.GetState() != "closed" || closed.GetTitle() != "no bump" || closed.ClosedAt == nil {
		t.Errorf("closed: %v", closed)
	}
	ok(t, create("again", "bump", "main"))
	if n := len(g.Pulls("acme/shop")); n != 2 || g.Creations()["pull request"] != 2 {
		t.Errorf("%d pull requests, created %v", n, g.Creations())
	}
}

func TestAMergeIsACommitOfBoth(t *testing.T) {
	t.Parallel()
	g, repo, client := versioned(t)
	e := listen(t, g, 7)
	head := repo.CommitTo("bump", "bump", gitserver.Files{"deploy/web.yaml": "image: 2\n", "deploy/db/db.yaml": gitserver.Delete})
	n := g.OpenPull("acme/shop", Pull{Title: "bump", Author: "ann", Head: Tip{Ref: "bump"}})
	was := repo.Commit("meanwhile", gitserver.Files{"README.md": "hi\n"})
	merged := g.MergePull("acme/shop", n, "bob")
	if got := repo.Git("log", "-1", "--format=%H %P", "main"); got != merged+" "+was+" "+head {
		t.Errorf("main is %s", got)
	}
	if got := repo.Git("show", "main:deploy/web.yaml") + repo.Git("show", "main:README.md") + repo.Git("ls-tree", "-r", "--name-only", "main"); got != "image: 2hiREADME.md\ndeploy/web.yaml" {
		t.Errorf("main holds %q", got)
	}
	p, _, err := client.PullRequests.Get(t.Context(), "acme", "shop", n)
	ok(t, err)
	of, _, err := client.PullRequests.ListPullRequestsWithCommit(t.Context(), "acme", "shop", merged, nil)
	ok(t, err)
	if !p.GetMerged() || p.GetMergeCommitSHA() != merged || len(of) != 1 {
		t.Errorf("the pull request is %v, found by the merge: %v", p, of)
	}
	all := e.take(g)
	if last := all[len(all)-1].event.(*github.PushEvent); last.GetBefore() != was || last.GetAfter() != merged || last.GetRef() != "refs/heads/main" || last.GetForced() {
		t.Errorf("the push is %v", last)
	}
	head = repo.CommitTo("bump", "more", gitserver.Files{"deploy/web.yaml": "image: 3\n"})
	m := g.OpenPull("acme/shop", Pull{Title: "more", Head: Tip{Ref: "bump"}})
	next := repo.CommitTo("bump", "more", gitserver.Files{"deploy/web.yaml": "image: 4\n"})
	g.Push("acme/shop", "bump", head, next, "ann")
	if p := g.Pull("acme/shop", m); p.Head.SHA != next {
		t.Errorf("after a push its head is %s", p.Head.SHA)
	}
	commits, _, err := client.PullRequests.ListCommits(t.Context(), "acme", "shop", m, nil)
	ok(t, err)
	if len(commits) != 2 || commits[1].GetSHA() != next || commits[0].GetCommit().GetMessage() != "more" {
		t.Errorf("its commits are %v", commits)
	}
}

func TestTheHeadOfAForkIsKeptInTheRepository(t *testing.T) {
	t.Parallel()
	g, repo, client := versioned(t)
	fork := gitserver.NewRepo(t, t.TempDir(), "fork", nil)
	fork.Git("fetch", "-q", repo.Dir, "main:main")
	head := fork.Commit("evil", gitserver.Files{"deploy/web.yaml": "image: evil\n"})
	g.Repository("eve/shop")
	g.Git("eve/shop", fork.Dir)
	n := g.OpenPull("acme/shop", Pull{Title: "evil", Author: "eve", Head: Tip{Repository: "eve/shop"}})
	if got := repo.Git("rev-parse", fmt.Sprintf("refs/pull/%d/head", n)); got != head {
		t.Errorf("it is kept as %s, want %s", got, head)
	}
	files, _, err := client.PullRequests.ListFiles(t.Context(), "acme", "shop", n, nil)
	ok(t, err)
	if len(files) != 1 || files[0].GetFilename() != "deploy/web.yaml" {
		t.Errorf("its files are %v", files)
	}
}

func TestWhatLiesInGitIsShown(t *testing.T) {
	t.Parallel()
	_, repo, client := versioned(t)
	base := repo.Head("main")
	head := repo.CommitTo("feature/x", "a change", gitserver.Files{"README.md": "hello\nthere\n", "link": gitserver.Link("README.md")})
	file, _, _, err := client.Repositories.GetContents(t.Context(), "acme", "shop", "deploy/web.yaml", nil)
	ok(t, err)
	content, err := file.GetContent()
	ok(t, err)
	_, folder, _, err := client.Repositories.GetContents(t.Context(), "acme", "shop", "deploy", &github.RepositoryContentGetOptions{Ref: "feature/x"})
	ok(t, err)
	if content != "image: 1\n" || len(folder) != 2 || folder[0].GetType() != "dir" || folder[1].GetPath() != "deploy/web.yaml" {
		t.Errorf("the file holds %q, the folder %v", content, folder)
	}
	link, _, _, err := client.Repositories.GetContents(t.Context(), "acme", "shop", "link", &github.RepositoryContentGetOptions{Ref: head})
	ok(t, err)
	if link.GetType() != "symlink" || link.GetTarget() != "README.md" {
		t.Errorf("the link is %v", link)
	}
	_, _, _, err = client.Repositories.GetContents(t.Context(), "acme", "shop", "nowhere", nil)
	expectRefused(t, err, 404, "Not Found")
	tree, _, err := client.Git.GetTree(t.Context(), "acme", "shop", base, true)
	ok(t, err)
	if len(tree.Entries) != 5 || tree.Entries[1].GetType() != "tree" || tree.GetTruncated() {
		t.Errorf("the tree is %v", tree)
	}
	compared, _, err := client.Repositories.CompareCommits(t.Context(), "acme", "shop", "main", "feature/x", nil)
	ok(t, err)
	if compared.GetStatus() != "ahead" || compared.GetAheadBy() != 1 || len(compared.Files) != 2 || compared.GetMergeBaseCommit().GetSHA() != base || compared.Commits[0].GetSHA() != head {
		t.Errorf("compared: %v", compared)
	}
	shown, _, err := client.Repositories.GetBranch(t.Context(), "acme", "shop", "main", 0)
	ok(t, err)
	commit, _, err := client.Repositories.GetCommit(t.Context(), "acme", "shop", head, nil)
	ok(t, err)
	if shown.GetCommit().GetSHA() != base || commit.GetCommit().GetMessage() != "a change" || commit.Parents[0].GetSHA() != base || commit.GetCommit().GetTree().GetSHA() == "" {
		t.Errorf("the branch is %v, the commit %v", shown, commit)
	}
	sha, _, err := client.Repositories.GetCommitSHA1(t.Context(), "acme", "shop", "main", "")
	ok(t, err)
	if sha != base {
		t.Errorf("main is at %s", sha)
	}
	_, response, err := client.Repositories.GetCommitSHA1(t.Context(), "acme", "shop", "main", sha)
	var e *github.ErrorResponse
	if !errors.As(err, &e) || response.StatusCode != 304 { // which go-github takes for an error
		t.Errorf("asked again: %v", err)
	}
}

// GitHub merges the default branch into one that lacks something of it, and then nothing is deployed.
func TestADeploymentOfAStaleBranchIsMergedInstead(t *testing.T) {
	t.Parallel()
	g, repo, client := versioned(t)
	repo.CommitTo("stale", "x", gitserver.Files{"a": "1"})
	repo.Commit("newer", gitserver.Files{"b": "1"})
	_, _, err := client.Repositories.CreateDeployment(t.Context(), "acme", "shop", &github.DeploymentRequest{Ref: pointer("stale")})
	var accepted *github.AcceptedError
	if !errors.As(err, &accepted) || len(g.Deployments("acme/shop", "")) != 0 {
		t.Errorf("%v; deployed are %v", err, g.Deployments("acme/shop", ""))
	}
	_, _, err = client.Repositories.CreateDeployment(t.Context(), "acme", "shop", &github.DeploymentRequest{Ref: pointer("stale"), AutoMerge: pointer(false)})
	ok(t, err)
}
