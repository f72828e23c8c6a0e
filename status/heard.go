package status

import (
	"cmp"
	"encoding/json"
	"fmt"
	"regexp"
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
	Default    bool   // Branch or Base is the repository's default branch
	Moved      bool   // what is known of where repositories are may no longer be true

	Pull       int    // a pull request that is another than before
	Group      string // the head of a group of a merge queue
	GroupBase  string // the commit that Group is built on
	GroupGone  bool   // nobody waits for Group any more
	Base       string // the branch that Pull or Group is to go into
	FormerBase string // the one that Pull was to go into before; "": the same
	Again      string // a head whose checks a person wants made again: of a pull request, or of a group
	Comment    int64  // below Pull, that may ask for something; 0: none
	CommentSum string // of what it says

	app           int64 // whose checks are to be made again
	formerDefault bool  // FormerBase is the repository's default branch
}

// heeded are the events that something is made of, and of which of their actions, where not of all; installation is one whose repositories are meant, too.
var heeded = map[string][]string{
	"push":                      nil,
	"repository":                {"renamed", "transferred"},
	"installation":              nil,
	"installation_repositories": nil,
	"pull_request":              {"opened", "reopened", "synchronize", "ready_for_review", "edited", "closed", "enqueued", "dequeued"},
	"merge_group":               {"checks_requested", "destroyed"},
	"check_suite":               {"rerequested"},
	"check_run":                 {"rerequested"},
	"issue_comment":             {"created"}, // what is changed later may be another's words
}

// Heeded reports whether anything is made of an event.
func Heeded(event string) bool {
	_, heed := heeded[event]
	return heed
}

// delivery is what is read of what GitHub sends. No field is required that is not used.
type delivery struct {
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
		Title *struct{}
		Base  *struct{ Ref struct{ From string } }
	}
	PullRequest struct {
		Number int
		Base   struct{ Ref string }
	} `json:"pull_request"`
	MergeGroup struct {
		HeadSHA string `json:"head_sha"`
		BaseSHA string `json:"base_sha"`
		BaseRef string `json:"base_ref"`
	} `json:"merge_group"`
	Issue struct {
		Number      int
		PullRequest *struct{} `json:"pull_request"`
	}
	Comment struct {
		ID   int64
		Body string
	}
	CheckSuite check `json:"check_suite"`
	CheckRun   check `json:"check_run"`
}

// check is a check run, or all of one App on a commit.
type check struct {
	HeadSHA string `json:"head_sha"`
	App     struct{ ID int64 }
}

const branches = "refs/heads/"

var sha = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)

// Hear reads a delivery; false: nothing is made of it.
func Hear(event string, body []byte) (h Heard, heed bool, err error) {
	if !Heeded(event) {
		return h, false, nil
	}
	var d delivery
	if err := json.Unmarshal(body, &d); err != nil {
		return h, false, fmt.Errorf("the delivery of %s is no JSON as GitHub sends it: %w", event, err)
	}
	if actions := heeded[event]; actions != nil && !slices.Contains(actions, d.Action) {
		return h, false, nil
	}
	h = Heard{ID: d.Repository.ID, Repository: d.Repository.FullName, Sender: d.Sender.Login}
	switch event {
	case "push":
		heed = h.push(d)
	case "repository":
		heed = h.moved(d)
	case "pull_request":
		heed = h.proposed(d)
	case "merge_group":
		h.Group, h.GroupBase, h.GroupGone = d.MergeGroup.HeadSHA, d.MergeGroup.BaseSHA, d.Action == "destroyed"
		h.Base = strings.TrimPrefix(d.MergeGroup.BaseRef, branches)
		h.Default = h.Base == d.Repository.DefaultBranch
		heed = sha.MatchString(h.Group) && sha.MatchString(h.GroupBase) && h.Base != ""
	case "issue_comment":
		h.Pull, h.Comment, h.CommentSum = d.Issue.Number, d.Comment.ID, Sum(d.Comment.Body)
		heed = d.Issue.PullRequest != nil && h.Pull > 0 && h.Comment > 0 && Calls(d.Comment.Body)
	case "check_suite", "check_run":
		of := d.CheckSuite
		if event == "check_run" {
			of = d.CheckRun
		}
		h.Again, h.app = of.HeadSHA, of.App.ID
		heed = sha.MatchString(h.Again)
	default:
		h = Heard{Sender: h.Sender, Account: d.Installation.Account.Login, Moved: true}
		heed = h.Account != ""
	}
	return h, heed, nil
}

func (h *Heard) push(d delivery) (heed bool) {
	branch, is := strings.CutPrefix(d.Ref, branches)
	h.Branch, h.Default = branch, branch == d.Repository.DefaultBranch
	return is && !d.Deleted && !strings.HasPrefix(branch, "gh-readonly-queue/")
}

func (h *Heard) moved(d delivery) (heed bool) {
	owner, name, _ := strings.Cut(h.Repository, "/")
	if h.Former = owner + "/" + d.Changes.Repository.Name.From; d.Action == "transferred" {
		from := d.Changes.Owner.From
		h.Former = from.User.Login + from.Organization.Login + "/" + name
	}
	h.Moved = true
	return true
}

func (h *Heard) proposed(d delivery) (heed bool) {
	h.Pull, h.Base = d.PullRequest.Number, d.PullRequest.Base.Ref
	h.Default = h.Base == d.Repository.DefaultBranch
	if to := d.Changes.Base; to != nil {
		h.FormerBase, h.formerDefault = to.Ref.From, to.Ref.From == d.Repository.DefaultBranch
	}
	described := d.Action == "edited" && d.Changes.Title == nil && d.Changes.Base == nil // what it says of itself, which nobody reads here
	return h.Pull > 0 && h.Base != "" && !described
}

// About reports whether it is about a repository of the configuration, and, for a push or a proposal, about the branch that is watched there; "" is the
// default branch.
func (h Heard) About(a *App, repository, branch string) bool {
	owner, _, _ := strings.Cut(repository, "/")
	of := cmp.Or(h.Branch, h.Base)
	switch {
	case h.Account != "":
		return strings.EqualFold(owner, h.Account)
	case !a.Is(repository, h.ID, h.Repository) && !strings.EqualFold(repository, h.Former):
		return false
	case h.Again != "":
		return h.app == a.config.ID
	case h.FormerBase != "" && (branch == h.FormerBase || branch == "" && h.formerDefault):
		return true
	case of == "":
		return true
	case h.Branch != "" && a.Itself(repository, h.Sender):
		return false // our own pushes are no news; our own pull requests are planned as anybody's
	}
	return branch == of || branch == "" && h.Default
}

// Proposes reports whether it is about a proposal, and not about what is there already.
func (h Heard) Proposes() bool { return h.Pull != 0 || h.Group != "" || h.Again != "" }
