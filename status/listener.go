package status

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"towpath/reconcile/rollout"
)

// Listener does what people ask for below the pull requests of one repository, if they may: the very same that the API does. Safe for concurrent use.
type Listener struct {
	Forge      *GitHub
	Acts       acts
	Repository string // "OWNER/NAME"
	Places     []Place
	Roles      []Role
	Clock      func() time.Time
}

// Place is a source that is fed by the repository.
type Place struct {
	Tenant, Source string
	Branch         string // that it watches
}

// Role is who holds a role on GitHub.
type Role struct {
	Name  string
	Teams []string // "ORGANIZATION/SLUG"
	Users []string // logins
}

// acts is what a Listener needs of the store. Safe for concurrent use.
type acts interface {
	// Observing reports whether nothing may be changed yet.
	Observing(ctx context.Context) (bool, error)
	Report(ctx context.Context, tenant, source, commit string, detailed int) (rollout.CommitReport, error)
	// What follows refuses with a *rollout.Refusal. What was done under a key is not done again.
	Say(ctx context.Context, said rollout.Saying) error
	CancelOnce(ctx context.Context, key, tenant, deployment, by, reason string) error
	// HoldApplication halts the rollouts of an application, or with end lets them go on.
	HoldApplication(ctx context.Context, key, tenant, application string, end bool, by, reason string) error
	LookAtProposals(ctx context.Context, looks ...rollout.ProposalLook) error
}

const (
	// stale is how old a comment may be: who asked for something expects it no more after that.
	stale = 30 * time.Minute
	// mostDetailed is of how many applications of one commit something can be asked for.
	mostDetailed = 1000
	// deployer is the role that may halt, stop, retry and skip.
	deployer = "deployer"
)

// Signs that answer a comment.
const (
	signDone    = "+1"
	signSeen    = "eyes"
	signRefused = "-1"
	signUnknown = "confused"
)

// Answer does what a comment asks for, each once, and says what came of it. An error is a *Failure of the forge, or the store's: to be tried again.
func (l *Listener) Answer(ctx context.Context, c rollout.Comment) (rollout.Reply, error) {
	remark, there, err := l.Forge.Remark(ctx, l.Repository, c.ID)
	if err != nil || !there || remark.Pull != c.Pull.Pull || remark.Author.Bot || remark.Author.Login == "" {
		return rollout.Reply{}, err
	}
	edited := remark.Edited || Sum(remark.Body) != c.Sum
	asked := Commands(remark.Body)
	if len(asked) == 0 && !edited {
		return rollout.Reply{}, nil
	}
	if ours, err := l.Forge.Ourselves(ctx, l.Repository, remark.Author); err != nil || ours {
		return rollout.Reply{}, err
	}
	pull, err := l.Forge.PullRequest(ctx, l.Repository, c.Pull.Pull)
	if err != nil {
		return rollout.Reply{}, err
	}
	places := slices.DeleteFunc(slices.Clone(l.Places), func(p Place) bool { return p.Branch != pull.Base })
	if len(places) == 0 {
		return rollout.Reply{}, nil
	}
	may, err := l.Forge.MayWrite(ctx, l.Repository, remark.Author.Login)
	if err != nil && !silent(err) {
		return rollout.Reply{}, err
	}
	if !may {
		return rollout.Reply{Signs: []string{signUnknown}}, nil
	}
	a := &answering{Listener: l, comment: c, pull: pull, places: places, by: &speaker{Person: remark.Author, listener: l}}
	switch old := l.Clock().Sub(remark.Written); {
	case edited:
		a.refuse("", "the comment was changed after it was written, and what it asked for was not done; write a new one")
	case old > stale:
		a.refuse("", fmt.Sprintf("it was read only %s after it was written, and what it asked for was not done; if it still holds, write it again", old.Round(time.Minute)))
	default:
		err = a.all(ctx, asked)
	}
	return a.reply(), err
}

// answering is one comment that is being answered.
type answering struct {
	*Listener
	comment rollout.Comment
	pull    Pull
	places  []Place
	by      *speaker

	signs []string
	lines []string
}

func (a *answering) all(ctx context.Context, asked []Command) error {
	if on, err := a.Acts.Observing(ctx); err != nil {
		return err
	} else if on {
		a.refuse("", "the controller observes since its database was lost, and touches nothing; its operator has it go on with: towpath-controller resume")
		return nil
	}
	for i, c := range asked {
		if i == MaxCommands {
			a.refuse("", fmt.Sprintf("of one comment %d commands are done; those after them were not", MaxCommands))
			break
		}
		if c.Wrong != "" {
			a.refuse(c.Line, c.Wrong)
			continue
		}
		if err := a.one(ctx, i, c); !a.refusedAs(c, err) && err != nil {
			return err
		}
	}
	return nil
}

// refusedAs notes what was refused; false: an error is none.
func (a *answering) refusedAs(c Command, err error) bool {
	var refusal *rollout.Refusal
	if !errors.As(err, &refusal) {
		return false
	}
	a.refuse(c.Line, refusal.Text)
	return true
}

func (a *answering) one(ctx context.Context, i int, c Command) error {
	switch c.Verb {
	case "help":
		a.note(signSeen, help)
		return nil
	case "status":
		return a.status(ctx)
	case "plan":
		return a.plan(ctx, c)
	case "cancel":
		return a.each(ctx, c, func(s stand) bool { return !s.state.Final() }, func(s stand) error {
			return a.Acts.CancelOnce(ctx, a.key(i, s.deployment), s.Tenant, s.deployment, a.by.name(), c.Reason)
		})
	case "pause", "resume":
		if c.Verb == "pause" && c.Reason == "" {
			return rollout.Refuse(rollout.Malformed, "what is halted needs a reason, for who wonders; give --reason")
		}
		return a.each(ctx, c, func(stand) bool { return true }, func(s stand) error {
			return a.Acts.HoldApplication(ctx, a.key(i, s.application), s.Tenant, s.application, c.Verb == "resume", a.by.name(), c.Reason)
		})
	}
	return a.say(ctx, i, c)
}

func (a *answering) sign(sign string) {
	if !slices.Contains(a.signs, sign) {
		a.signs = append(a.signs, sign)
	}
}

func (a *answering) note(sign, text string) {
	a.sign(sign)
	a.lines = append(a.lines, text)
}

// refuse notes why a line was not done; "": none of them was.
func (a *answering) refuse(asked, why string) {
	a.sign(signRefused)
	text := prose(why, 1000)
	if asked != "" {
		text = code(asked, 200) + ": " + text
	}
	a.lines = append(a.lines, "- "+text)
}

func (a *answering) reply() rollout.Reply {
	r := rollout.Reply{Signs: a.signs}
	if len(a.lines) > 0 {
		r.Text = fmt.Sprintf("**%s**\n\n%s", prose(a.by.Login, mostName), strings.Join(a.lines, "\n"))
	}
	return r
}

// key is what one thing that is asked for is done under, once.
func (a *answering) key(command int, of string) string {
	return fmt.Sprintf("comment %s %d %d %s", a.Repository, a.comment.ID, command, of)
}

// stand is a target that something can be said to.
type stand struct {
	Place
	application, deployment string
	state                   rollout.State
	rollout.TargetReport
}

func (s stand) String() string { return s.application + "/" + s.Name }

// stands are the targets of the deployments that the merge of the pull request started.
func (a *answering) stands(ctx context.Context) (all []stand, err error) {
	if a.pull.Merged == "" {
		return nil, rollout.Refuse(rollout.Conflicts, "the pull request is not merged, so nothing of it is under way")
	}
	for _, p := range a.places {
		report, err := a.Acts.Report(ctx, p.Tenant, p.Source, a.pull.Merged, mostDetailed)
		if err != nil {
			return nil, err
		}
		for _, application := range report.Applications {
			for _, t := range application.Targets {
				all = append(all, stand{p, application.Application, application.Deployment, application.State, t})
			}
		}
	}
	if len(all) == 0 {
		return nil, rollout.Refuse(rollout.Missing, "the commit of this merge, %.10s, started nothing; where it was merged together with others, their newest pull request is the one to ask below", a.pull.Merged)
	}
	return all, nil
}

// meant are the targets that a command is about.
func meant(c Command, all []stand, verb rollout.Verb) (chosen []stand, err error) {
	if c.Of != "" && c.Of != All {
		for _, s := range all {
			if s.Name == c.Of || s.String() == c.Of {
				chosen = append(chosen, s)
			}
		}
		switch {
		case len(chosen) == 0:
			return nil, rollout.Refuse(rollout.Missing, "this merge has no target %s; it has %s", c.Of, named(all))
		case len(chosen) > 1:
			return nil, rollout.Refuse(rollout.Malformed, "%s is a target of several applications; name one of %s", c.Of, named(chosen))
		}
		return chosen, nil
	}
	for _, s := range all {
		if slices.ContainsFunc(s.Waits, verb.Speaks) {
			chosen = append(chosen, s)
		}
	}
	switch {
	case len(chosen) == 0:
		return nil, rollout.Refuse(rollout.Conflicts, "no target of this merge waits for that")
	case len(chosen) > 1 && c.Of == "":
		return nil, rollout.Refuse(rollout.Malformed, "%d targets wait for that: name one of %s, or all", len(chosen), named(chosen))
	}
	return chosen, nil
}

// named are targets by their names, the first of them.
func named(all []stand) string {
	const most = 10
	var names []string
	for _, s := range all[:min(len(all), most)] {
		names = append(names, s.String())
	}
	if more := len(all) - most; more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}

// say says a word to the targets that a command is about.
func (a *answering) say(ctx context.Context, i int, c Command) error {
	verb := rollout.Verb(c.Verb)
	if verb == rollout.Retry || verb == rollout.Pass {
		if err := a.deploys(ctx, c); err != nil {
			return err
		}
	}
	all, err := a.stands(ctx)
	if err != nil {
		return err
	}
	chosen, err := meant(c, all, verb)
	if err != nil {
		return err
	}
	for _, s := range chosen {
		roles, err := a.by.roles(ctx)
		if err != nil {
			return err
		}
		said := rollout.Saying{Tenant: s.Tenant, Deployment: s.deployment, Target: s.Name, Verb: verb, By: a.by.name(), Known: a.Forge.aliases(a.by.Person), Roles: roles, Reason: c.Reason,
			Key: a.key(i, s.deployment+" "+s.Name)}
		if verb != rollout.Reject && slices.ContainsFunc(s.Waits, rollout.Wait.Others) {
			if said.Own, err = a.own(ctx); err != nil {
				return err
			}
		}
		switch err := a.Acts.Say(ctx, said); {
		case err == nil:
			a.sign(signDone)
		case !a.refusedAs(c, a.by.explained(err)):
			return err
		}
	}
	return nil
}

// own is why the change is the person's own; "": as far as GitHub knows it is not.
func (a *answering) own(ctx context.Context) (string, error) {
	is := func(login string) bool { return strings.EqualFold(login, a.by.Login) }
	switch {
	case is(a.pull.Author):
		return "who opened the pull request", nil
	case is(a.pull.MergedBy):
		return "who merged the pull request", nil
	}
	writers, all, err := a.Forge.Writers(ctx, a.Repository, a.pull.Number)
	switch {
	case err != nil && silent(err):
		return "since GitHub does not tell who wrote the commits of the pull request", nil
	case err != nil:
		return "", err
	case slices.ContainsFunc(writers, is):
		return "who wrote a commit of the pull request", nil
	case !all:
		return fmt.Sprintf("since GitHub tells of no more than %d commits of the pull request who wrote them", maxCommits), nil
	}
	return "", nil
}

// deploys refuses who does not hold the role that halts, stops, retries and skips.
func (a *answering) deploys(ctx context.Context, c Command) error {
	roles, err := a.by.roles(ctx)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(roles, func(role string) bool { return strings.EqualFold(role, deployer) }) {
		return nil
	}
	return a.by.explained(rollout.Refuse(rollout.Forbidden, "%s needs the role %s; %s holds %s", c.Verb, deployer, a.by.name(), rollout.RolesInWords(roles)))
}

// each does something to the applications of the merge that a command is about: the one that it names, else those that it fits.
func (a *answering) each(ctx context.Context, c Command, fits func(stand) bool, do func(stand) error) error {
	if err := a.deploys(ctx, c); err != nil {
		return err
	}
	all, err := a.stands(ctx)
	if err != nil {
		return err
	}
	var chosen []stand
	for _, s := range all {
		first := !slices.ContainsFunc(chosen, func(o stand) bool { return o.deployment == s.deployment })
		if first && (c.Of == s.application || (c.Of == "" || c.Of == All) && fits(s)) {
			chosen = append(chosen, s)
		}
	}
	switch {
	case len(chosen) == 0 && c.Of != "" && c.Of != All:
		return rollout.Refuse(rollout.Missing, "this merge started nothing of an application %s", c.Of)
	case len(chosen) == 0:
		return rollout.Refuse(rollout.Conflicts, "nothing that this merge started is under way")
	case len(chosen) > 1 && c.Of == "":
		return rollout.Refuse(rollout.Malformed, "this merge is about %d applications: name one of them, or all", len(chosen))
	}
	for _, s := range chosen {
		switch err := do(s); {
		case err == nil:
			a.sign(signDone)
		case !a.refusedAs(c, err):
			return err
		}
	}
	return nil
}

// plan has the pull request planned anew, and its head, which the command may name, be read though it may come from another repository.
func (a *answering) plan(ctx context.Context, c Command) error {
	switch {
	case a.pull.Closed:
		return rollout.Refuse(rollout.Conflicts, "the pull request is closed, so nothing of it is planned")
	case c.Of == "" && a.pull.Fork:
		return rollout.Refuse(rollout.Malformed, "%.10s comes from another repository: read it, and name it whole, as in /towpath plan %s", a.pull.Head, a.pull.Head)
	case c.Of != "" && c.Of != a.pull.Head:
		return rollout.Refuse(rollout.Conflicts, "%.10s is not the head of the pull request, which is %.10s by now; read that, and name it", c.Of, a.pull.Head)
	}
	return a.look(ctx, rollout.ProposalLook{Anew: true, Named: c.Of})
}

// look has the pull request looked at.
func (a *answering) look(ctx context.Context, how rollout.ProposalLook) error {
	looks := make([]rollout.ProposalLook, len(a.places))
	for i, p := range a.places {
		looks[i] = how
		looks[i].ProposalName = rollout.ProposalName{Tenant: p.Tenant, Source: p.Source, Pull: a.pull.Number}
	}
	a.sign(signSeen)
	return a.Acts.LookAtProposals(ctx, looks...)
}

// status says where the targets of the merge stand; before it, the plan says all there is, and is looked after.
func (a *answering) status(ctx context.Context) error {
	if a.pull.Merged == "" {
		return a.look(ctx, rollout.ProposalLook{})
	}
	all, err := a.stands(ctx)
	if err != nil {
		return err
	}
	const most = 30
	a.sign(signSeen)
	for _, s := range all[:min(len(all), most)] {
		text := fmt.Sprintf("- %s: %s", code(s.String(), 200), prose(string(s.State), mostName))
		for _, w := range s.Waits {
			text += "; waits for " + prose(w.Needs, 300)
		}
		if len(s.Waits) == 0 && s.Why != "" {
			text += "; " + prose(s.Why, 300)
		}
		a.lines = append(a.lines, text)
	}
	if more := len(all) - most; more > 0 {
		a.lines = append(a.lines, fmt.Sprintf("- and %d more", more))
	}
	return nil
}

// speaker is who asks for something, and what they may do, read once for each comment.
type speaker struct {
	Person
	listener *Listener

	read   bool
	held   []string
	unread []string // why roles may be missing
}

// name is what history calls the person: nobody else can be called so.
func (s *speaker) name() string { return s.Login + " (GitHub)" }

// roles are those that the person holds.
func (s *speaker) roles(ctx context.Context) ([]string, error) {
	if s.read {
		return s.held, nil
	}
	s.held, s.unread = nil, nil
	teams := map[string]bool{}
	for _, role := range s.listener.Roles {
		holds := slices.ContainsFunc(role.Users, func(login string) bool { return strings.EqualFold(login, s.Login) })
		for _, team := range role.Teams {
			in, known := teams[team]
			if !known && !holds {
				var err error
				if in, err = s.listener.Forge.InTeam(ctx, s.listener.Repository, team, s.Login); err != nil {
					if !silent(err) {
						return nil, err
					}
					s.unread = append(s.unread, err.Error())
				}
				teams[team] = in
			}
			holds = holds || in
		}
		if holds {
			s.held = append(s.held, role.Name)
		}
	}
	s.read = true
	return s.held, nil
}

// explained adds to a refusal what kept roles from being known.
func (s *speaker) explained(err error) error {
	var refusal *rollout.Refusal
	if !errors.As(err, &refusal) || refusal.Kind != rollout.Forbidden || len(s.unread) == 0 {
		return err
	}
	return rollout.Refuse(refusal.Kind, "%s; %s", refusal.Text, strings.Join(s.unread, "; "))
}
