package history

import (
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"
)

// A pod may go between the list that is waited for and the look at what watches brought.
func TestWhatIsGoneIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	h := History{newest: map[string]map[string]uint64{"pod": {}}}
	pod := func(version string) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"name": "a", "resourceVersion": version}}}
	}
	h.note("pod", watch.Added, pod("5"))
	listed := []unstructured.Unstructured{*pod("6")}
	if got := h.behind("pod", listed); got != "a" {
		t.Errorf("at version 5, %q is behind a list of version 6", got)
	}
	h.note("pod", watch.Deleted, pod("7"))
	if got := h.behind("pod", listed); got != "" {
		t.Errorf("gone at version 7, %q is behind a list of version 6", got)
	}
}
