package simulate

import (
	"fmt"
	"strings"

	"towpath/reconcile/rollout"
)

// answer says to the gates that a target waits at what people say by now. It reports whether anything was said; if not, the target is woken when
// something will be.
func (s *simulation) answer(l *lane) (said bool) {
	for _, w := range l.target.Waits {
		answer, known := s.answerTo(l, w)
		if !known {
			continue
		}
		at := w.Since.Add(answer.After)
		if at.After(s.now) {
			s.wakeAt(l, at)
			continue
		}
		by := person(l.facts.Words, w)
		l.facts.Words = append(l.facts.Words, rollout.Word{Target: l.target.Name, Gate: w.Gate, Digest: l.target.Digest, Verb: answer.Verb, By: by, Reason: answer.Reason, At: s.now})
		s.tell(l, fmt.Sprintf("%s is %s by %s", w.Gate, saidAs[answer.Verb], by), answer.Reason)
		said = true
	}
	return said
}

// answerTo is what people say to a wait; known is false when nobody says anything.
func (s *simulation) answerTo(l *lane, w rollout.Wait) (answer Answer, known bool) {
	answer, known = l.assumed.Gates[w.Gate]
	switch w.Kind {
	case rollout.WaitApproval, rollout.WaitPause:
	case rollout.WaitWebhook, rollout.WaitAnalysis:
		return answer, answer.Verb == rollout.Pass // what else is said of it is said by what is outside
	default:
		return Answer{}, false
	}
	if !known && w.Kind == rollout.WaitApproval {
		answer = s.assumed.Otherwise
	}
	if w.Kind == rollout.WaitPause && answer.Verb == rollout.Approve {
		answer.Verb = rollout.Pass // a pause asks for nobody's approval
	}
	return answer, answer.Verb != ""
}

var saidAs = map[rollout.Verb]string{rollout.Approve: "approved", rollout.Reject: "rejected", rollout.Pass: "skipped"}

// person is a name for the next one who says something to a gate: approvals are of different people.
func person(words []rollout.Word, w rollout.Wait) string {
	nth := 1
	for _, word := range words {
		if word.Gate == w.Gate {
			nth++
		}
	}
	who := fmt.Sprintf("person %d", nth)
	if len(w.Who) > 0 {
		who += " of " + strings.Join(w.Who, " or ")
	}
	return who
}
