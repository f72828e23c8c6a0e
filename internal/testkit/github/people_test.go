package github

import "testing"

func TestARoleIsFoldedIntoAPermission(t *testing.T) {
	t.Parallel()
	g := New(t)
	g.Repository("acme/shop", sha)
	g.Token("reads", "acme/shop", Rights{"metadata": "read"})
	client := speak(t, g, "reads")
	for role, permission := range map[string]string{"admin": "admin", "maintain": "write", "write": "write", "triage": "read", "read": "read", "": "none"} {
		g.Role("acme/shop", "Ann", role)
		level, _, err := client.Repositories.GetPermissionLevel(t.Context(), "acme", "shop", "ann")
		ok(t, err)
		if role == "" {
			role = "none"
		}
		if level.GetPermission() != permission || level.GetUser().GetRoleName() != role || level.GetUser().GetLogin() != "Ann" {
			t.Errorf("%s is shown as %v", role, level)
		}
	}
	_, _, err := client.Repositories.GetPermissionLevel(t.Context(), "acme", "shop", "nobody")
	expectRefused(t, err, 404, "Not Found")
}

func TestATeamHasMembersAndInvitedOnes(t *testing.T) {
	t.Parallel()
	g := New(t)
	g.Repository("acme/shop", sha)
	g.Member("acme/sre", "ann", "active")
	g.Member("acme/sre", "bob", "pending")
	client := install(t, g, 7, "towpath", Rights{"members": "read"})
	for login, want := range map[string]string{"Ann": "active", "bob": "pending"} {
		membership, _, err := client.Teams.GetTeamMembershipBySlug(t.Context(), "acme", "sre", login)
		ok(t, err)
		if membership.GetState() != want {
			t.Errorf("%s is %v", login, membership)
		}
	}
	g.Member("acme/sre", "ann", "")
	for _, login := range []string{"eve", "ann"} {
		_, _, err := client.Teams.GetTeamMembershipBySlug(t.Context(), "acme", "sre", login)
		expectRefused(t, err, 404, "Not Found")
	}
	_, _, err := install(t, g, 8, "blind", Rights{"checks": "write"}).Teams.GetTeamMembershipBySlug(t.Context(), "acme", "sre", "bob")
	expectRefused(t, err, 403, "Resource not accessible by integration")
}
