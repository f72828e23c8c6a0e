package github

import "testing"

// Each answer is checked against the description: here it is enough that one comes.
func TestGitHubSaysWhoAsksAndWhatItSees(t *testing.T) {
	t.Parallel()
	g, client := talking(t)
	user, _, err := client.Users.Get(t.Context(), "")
	ok(t, err)
	repository, _, err := client.Repositories.Get(t.Context(), "acme", "shop")
	ok(t, err)
	limits, _, err := client.RateLimit.Get(t.Context())
	ok(t, err)
	_, _, err = client.Meta.Get(t.Context())
	ok(t, err)
	if user.GetLogin() != "towpath-writes" || repository.GetFullName() != "acme/shop" || limits.Core.Limit != 5000 || limits.Core.Remaining != 4997 {
		t.Errorf("%v, %v, %v", user, repository, limits)
	}
	app := install(t, g, 7, "towpath", Rights{"statuses": "read"})
	seen, _, err := app.Apps.ListRepos(t.Context(), nil)
	ok(t, err)
	if seen.GetTotalCount() != 1 || seen.Repositories[0].GetFullName() != "acme/shop" {
		t.Errorf("an installation sees %v", seen)
	}
	_, _, err = app.Users.Get(t.Context(), "")
	expectRefused(t, err, 403, "Resource not accessible by integration")
	g.Tell("acme/shop", sha, Status{Context: "ci", State: "success"})
	g.Tell("acme/shop", sha, Status{Context: "towpath/shop", State: "pending"})
	combined, _, err := client.Repositories.GetCombinedStatus(t.Context(), "acme", "shop", sha, nil)
	ok(t, err)
	if combined.GetState() != "pending" || combined.GetTotalCount() != 2 {
		t.Errorf("combined are %v", combined)
	}
}
