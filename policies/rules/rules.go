// Package rules judges manifests by rules that a platform team writes in CEL: what is to be deployed, and what would be removed. It is pure; a verdict depends on
// the rules and the objects alone, never on time, so that each replica comes to the same. Docs: docs/how-to/policies.md.
package rules

import (
	"fmt"
	"slices"

	"cel.dev/cel-go/cel"

	"towpath/deployment"
	"towpath/manifest"
	"towpath/policies"
)

// Operation is what becomes of an object.
type Operation string

// Operations.
const (
	Apply  Operation = "apply"
	Remove Operation = "remove"
)

// Case is one object to be judged.
type Case struct {
	Operation   Operation
	Object      *manifest.Object // to be applied; nil with Remove
	Old         *manifest.Object // as it was last deployed; nil: it is new
	Target      Target
	Application string
}

// key of the object.
func (c Case) key() manifest.Key { return c.subject().Key }

// subject is the object that is spoken about.
func (c Case) subject() *manifest.Object {
	if c.Object != nil {
		return c.Object
	}
	return c.Old
}

// Target is where an object goes.
type Target struct{ Name, Account, Namespace string }

// Finding is a rule that an object does not keep.
type Finding struct {
	Rule      string              `json:"rule"`
	From      string              `json:"from"`     // where the rule stands: "policies/pods.yaml:12 of source platform"
	Severity  deployment.Severity `json:"severity"` // Error: what would be deployed is refused
	Message   string              `json:"message"`
	Operation Operation           `json:"operation"`
	Key       manifest.Key        `json:"object"`
	Source    string              `json:"source,omitempty"` // of the object, as manifest.Object has it: "apps/web.yaml:3"
	Target    string              `json:"target"`
}

// Sentence is the finding for whoever has to change something.
func (f Finding) Sentence() string {
	verb, where := "refuses", " on target "+f.Target
	if f.Severity == deployment.Warning {
		verb = "warns of"
	}
	object := f.Key.String()
	if f.Operation == Remove {
		object, where = "the removal of "+object, " from target "+f.Target
	}
	if f.Source != "" {
		where += " (" + f.Source + ")"
	}
	return fmt.Sprintf("rule %s (%s) %s %s%s: %s", f.Rule, f.From, verb, object, where, f.Message)
}

// Set is rules that were read and compiled. The zero value has none. Safe for concurrent use.
type Set struct{ rules []rule }

// Join is the rules of several sets, in their order.
func Join(sets ...Set) Set {
	var all Set
	for _, s := range sets {
		all.rules = append(all.rules, s.rules...)
	}
	return all
}

// Len is how many rules there are.
func (s Set) Len() int { return len(s.rules) }

type rule struct {
	name, from    string
	match, except match
	on            []Operation
	severity      deployment.Severity
	variables     []variable
	require       cel.Program
	message       message
}

// variable is an expression that others refer to as variables.NAME.
type variable struct {
	name    string
	program cel.Program
}

// match says what a rule is about. Each list holds patterns in which * stands for any run of characters; an empty one fits everything.
type match struct {
	kinds        []string // Kind or Kind.group
	targets      []string
	accounts     []string
	namespaces   []string // of objects; cluster-wide ones are fitted by * only
	applications []string
}

func (m match) empty() bool {
	return len(m.kinds)+len(m.targets)+len(m.accounts)+len(m.namespaces)+len(m.applications) == 0
}

func (m match) fits(c Case) bool {
	fits := func(patterns []string, name string) bool { return len(patterns) == 0 || policies.Fits(patterns, name) }
	key := c.key()
	return (len(m.kinds) == 0 || policies.FitsKind(m.kinds, key)) && fits(m.targets, c.Target.Name) && fits(m.accounts, c.Target.Account) &&
		fits(m.namespaces, key.Namespace) && fits(m.applications, c.Application)
}

func (r rule) about(c Case) bool {
	return slices.Contains(r.on, c.Operation) && r.match.fits(c) && (r.except.empty() || !r.except.fits(c))
}

// Judge holds one object against the rules, in their order. What a rule cannot judge does not keep it.
func (s Set) Judge(c Case) []Finding {
	var findings []Finding
	var values *values // made for the first rule that is about the object
	for _, r := range s.rules {
		if !r.about(c) {
			continue
		}
		if values == nil {
			values = valuesOf(c)
		}
		if text := r.broken(values); text != "" {
			findings = append(findings, Finding{Rule: r.name, From: r.from, Severity: r.severity, Message: text, Operation: c.Operation, Key: c.key(), Source: c.subject().Source,
				Target: c.Target.Name})
		}
	}
	return findings
}

// broken says why the rule is not kept; "": it is.
func (r rule) broken(v *values) string {
	facts := v.with(r.variables)
	kept, _, err := r.require.Eval(facts)
	switch {
	case err != nil:
		return "it cannot be judged, and so does not keep the rule: " + told(err)
	case kept.Value() == true:
		return ""
	}
	return r.message.fill(facts)
}
