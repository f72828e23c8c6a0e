package status_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"towpath/internal/testkit/github"
	"towpath/reconcile/rollout"
	"towpath/status"
	"towpath/store"
)

// reply answers a comment that a person wrote, as the controller records it.
func (w *proposing) reply(body string, reply rollout.Reply) (comment int64) {
	w.Helper()
	comment = w.hub.Comment("acme/repo", 7, "kim", body)
	pull := rollout.ProposalName{Tenant: "main", Source: "repo", Pull: 7}
	_, err := w.store.Deliver(w.Context(), "hook", fmt.Sprint(comment), "issue_comment", []byte("{}"), store.Hints{Comments: []rollout.Comment{{Pull: pull, ID: comment, Sum: status.Sum(body)}}})
	w.must(err)
	c, err := w.store.ClaimComment(w.Context(), "pull/main/repo/7", time.Minute)
	w.must(err)
	w.must(w.store.AnswerComment(w.Context(), *c, reply))
	return comment
}

// sender is a teller of an outbox as the App.
func (w *proposing) sender(outbox status.Outbox) *status.Teller {
	config := w.sends.Config
	config.Outbox = outbox
	return status.New(config)
}

// answers are the signs beside comments of people, and what our replies say, in order.
func (w *proposing) answers() string {
	var all []string
	for _, c := range w.hub.Comments("acme/repo", 7) {
		for _, r := range c.Reactions {
			all = append(all, r.Content)
		}
		if _, text, is := strings.Cut(c.Body, "### Towpath · answers\n"); is {
			said, _, _ := strings.Cut(text, "<sub>")
			all = append(all, strings.Join(strings.Fields(said), " "))
		}
	}
	return strings.Join(all, "; ")
}

func TestAnswersAreGivenOnceThoughTheProcessDiesOrAnswersAreLost(t *testing.T) {
	for name, c := range map[string]struct {
		faults []github.Fault
		at     int // when the process dies; 0: never
		after  bool
	}{
		"as all goes well":              {nil, 0, false},
		"the sign's answer is lost":     {[]github.Fault{github.Unanswered}, 0, false},
		"the reply's answer is lost":    {[]github.Fault{github.None, github.None, github.None, github.Unanswered}, 0, false},
		"the look for the reply fails":  {[]github.Fault{github.None, github.None, github.Broken(502)}, 0, false},
		"it dies before it records":     {nil, 1, false},
		"it dies after it recorded":     {nil, 1, true},
		"it dies and an answer is lost": {[]github.Fault{github.Unanswered}, 1, false},
		"GitHub asks to be left alone":  {[]github.Fault{github.TooMuch(403, time.Minute)}, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			proposes(t, func(w *proposing) {
				w.after(time.Minute)
				w.hub.Next(c.faults...)
				if c.at > 0 {
					killed := &dying{w.store, c.at, c.after, make(chan struct{})}
					w.stop()
					w.reply("/towpath aprove", rollout.Reply{Signs: []string{"-1"}, Text: "no verb"})
					w.run(w.sender(killed))
					<-killed.died
				} else {
					w.reply("/towpath aprove", rollout.Reply{Signs: []string{"-1"}, Text: "no verb"})
				}
				w.run(w.sender(w.store))
				w.after(20 * time.Minute)
				if got := w.answers(); got != "-1; no verb" {
					w.Errorf("shown is %q", got)
				}
				w.reply("/towpath approve prod", rollout.Reply{Signs: []string{"+1", "-1"}, Text: "no role"})
				w.after(20 * time.Minute)
				if got := w.answers(); got != "-1; no role no verb; +1; -1" && got != "-1; +1; -1; no role no verb" {
					w.Errorf("then shown is %q", got)
				}
			})
		})
	}
}

func TestAnAnswerToWhatIsGoneKeepsNoOtherBack(t *testing.T) {
	proposes(t, func(w *proposing) {
		w.run(w.sender(w.store))
		comment := w.hub.Comment("acme/repo", 7, "kim", "/towpath help")
		w.hub.DeleteComment("acme/repo", comment, "kim")
		w.hub.NextOf("reactions/create-for-issue-comment", github.Refused(http.StatusForbidden, "locked"))
		w.reply("/towpath help", rollout.Reply{Signs: []string{"eyes"}, Text: "help"})
		w.after(20 * time.Minute)
		if got := w.answers(); got != "help" && got != "eyes; help" {
			w.Errorf("shown is %q", got)
		}
	})
}
