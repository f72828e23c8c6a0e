package cluster

import (
	"testing"
)

// Annotations are what anybody in a cluster may write.
func TestANumberThatNoDeploymentHasIsNone(t *testing.T) {
	for text, want := range map[string]int{"7": 7, "0": 0, "": 0, "-1": 0, "9223372036854775807": 0, "99999999999999999999": 0, "1000000001": 0, "1e3": 0, "seven": 0} {
		if got := numberOf(map[string]string{AnnotationNumber: text}); got != want {
			t.Errorf("%q is #%d, want #%d", text, got, want)
		}
	}
}
