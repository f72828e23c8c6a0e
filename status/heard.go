package status

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Heard is what an App's webhook says, as far as it is heeded. It is a hint: what is true is looked up.
type Heard struct {
	ID         int64  // of the repository; 0: it is about an account
	Repository string // "OWNER/NAME", as it is called now
	Former     string // as it was called before
	Account    string // whose installation changed
	Sender     string // the login of who did it
	Branch     string // that was pushed to
	Default    bool   // it is the repository's default branch
	Moved      bool   // what is known of where repositories are may no longer be true
}

// heeded are the events that something is made of; installation is one whose repositories are meant, too.
var heeded = []string{"push", "repository", "installation", "installation_repositories"}

// Heeded reports whether anything is made of an event.
func Heeded(event string) bool { return slices.Contains(heeded, event) }

// Hear reads a delivery; false: nothing is made of it. No field is required that is not used.
func Hear(event string, body []byte) (h Heard, heed bool, err error) {
	if !Heeded(event) {
		return h, false, nil
	}
	var said struct {
		Action       string
		Ref          string
		Deleted      bool
		Sender       struct{ Login string }
		Installation struct{ Account struct{ Login string } }
		Repository   struct {
			ID            int64
			FullName      string `json:"full_name"`
			DefaultBranch string `json:"default_branch"`
		}
		Changes struct {
			Repository struct{ Name struct{ From string } }
			Owner      struct {
				From struct{ User, Organization struct{ Login string } }
			}
		}
	}
	if err := json.Unmarshal(body, &said); err != nil {
		return h, false, fmt.Errorf("the delivery of %s is no JSON as GitHub sends it: %w", event, err)
	}
	h = Heard{ID: said.Repository.ID, Repository: said.Repository.FullName, Sender: said.Sender.Login}
	owner, name, _ := strings.Cut(h.Repository, "/")
	switch event {
	case "push":
		branch, is := strings.CutPrefix(said.Ref, "refs/heads/")
		h.Branch, h.Default = branch, branch == said.Repository.DefaultBranch
		return h, is && !said.Deleted && !strings.HasPrefix(branch, "gh-readonly-queue/"), nil
	case "repository":
		switch from := said.Changes.Owner.From; said.Action {
		case "renamed":
			h.Former = owner + "/" + said.Changes.Repository.Name.From
		case "transferred":
			h.Former = from.User.Login + from.Organization.Login + "/" + name
		default:
			return h, false, nil
		}
		h.Moved = true
		return h, true, nil
	}
	h.ID, h.Repository, h.Account, h.Moved = 0, "", said.Installation.Account.Login, true
	return h, h.Account != "", nil
}

// About reports whether it is about a repository of the configuration, and, for a push, about the branch that is watched there; "" is the default branch.
func (h Heard) About(a *App, repository, branch string) bool {
	owner, _, _ := strings.Cut(repository, "/")
	switch {
	case h.Account != "":
		return strings.EqualFold(owner, h.Account)
	case !a.Is(repository, h.ID, h.Repository) && !strings.EqualFold(repository, h.Former):
		return false
	case h.Branch == "":
		return true
	case a.Itself(repository, h.Sender):
		return false // our own doings are no news
	}
	return branch == h.Branch || branch == "" && h.Default
}
