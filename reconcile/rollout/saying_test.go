package rollout_test

import (
	"testing"

	"towpath/reconcile/rollout"
)

func TestWhatIsNoStepOfTheFileIsNotSkippedAndASkipNeedsAReason(t *testing.T) {
	waits := func(gate string) rollout.Target {
		return rollout.Target{Name: "prod", Deployment: "d1", State: rollout.AwaitingApproval, Waits: []rollout.Wait{{Kind: rollout.WaitApproval, Gate: gate}}}
	}
	for gate, c := range map[string]struct{ reason, want string }{
		"canary.steps[1]": {"", "what is skipped against the file needs a reason, for history; give --reason"},
		"canary.steps[0]": {"seen enough", ""},
		"prune":           {"seen enough", "prune of target prod is no step of the file that could be skipped; approve it, or reject it"},
		"found":           {"seen enough", "found of target prod is no step of the file that could be skipped; approve it, or reject it"},
	} {
		s := rollout.Saying{Deployment: "d1", Verb: rollout.Pass, By: "ann", Admin: true, Reason: c.reason}
		target, err := s.Find([]rollout.Target{waits(gate)})
		if err == nil {
			_, err = s.Gates(target)
		}
		if got := words(err); got != c.want {
			t.Errorf("%s: %q, want %q", gate, got, c.want)
		}
	}
}

func words(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
