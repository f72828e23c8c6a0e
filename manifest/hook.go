package manifest

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
)

// Hook says of an object when in a rollout it is made, and when it goes. It is what Helm writes in annotations (helm.sh/docs/topics/charts_hooks).
type Hook struct {
	Events   []string // "pre-install", "post-upgrade", …
	Weight   int      // lower ones come first
	Policies []string // when it goes: "before-hook-creation", which is what counts where nothing is said, "hook-succeeded", "hook-failed"
}

const (
	hookAnnotation   = "helm.sh/hook"
	weightAnnotation = "helm.sh/hook-weight"
	policyAnnotation = "helm.sh/hook-delete-policy"
)

// IsHook reports whether the object is a hook: no part of what is kept in a cluster.
func (o Object) IsHook() bool { return o.Hook() != nil }

// Hook is when the object is made; nil when it is none.
func (o Object) Hook() *Hook {
	if !bytes.Contains(o.JSON, []byte(hookAnnotation)) {
		return nil // most objects; reading each would cost more than all the rest
	}
	annotations := Child(o.Map(), "metadata", "annotations")
	text := func(name string) string {
		value, _ := annotations[name].(string)
		return value
	}
	h := Hook{Events: list(text(hookAnnotation)), Policies: list(text(policyAnnotation))}
	if len(h.Events) == 0 {
		return nil
	}
	if len(h.Policies) == 0 {
		h.Policies = []string{"before-hook-creation"}
	}
	h.Weight, _ = strconv.Atoi(text(weightAnnotation)) // what is no number is 0, as with Helm
	return &h
}

// On reports whether the hook is one of an event.
func (h Hook) On(event string) bool { return slices.Contains(h.Events, event) }

// Goes reports whether the hook goes then.
func (h Hook) Goes(policy string) bool { return slices.Contains(h.Policies, policy) }

func list(text string) (words []string) {
	for word := range strings.SplitSeq(text, ",") {
		if word = strings.ToLower(strings.TrimSpace(word)); word != "" {
			words = append(words, word)
		}
	}
	return words
}
