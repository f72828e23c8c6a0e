package simulate

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"towpath/deployment"
	"towpath/reconcile/rollout"
)

// Answers are what a file says of people, pods and agents.
type Answers struct {
	Otherwise Answer                   // to approvals that no target's Gates name
	Targets   map[string]TargetAnswers // by target
	Accounts  map[string][]Absence     // by account
}

// TargetAnswers are the answers for one target.
type TargetAnswers struct {
	Ready Readiness
	Gates map[string]Answer // by gate: "canary.steps[1]"
}

// Readiness is how long pods take to become ready. The zero value says nothing of it.
type Readiness struct {
	Said  bool
	After time.Duration
	Never bool // those of the new version do not become ready
}

// Answer is what people say to a gate, and when. The zero value is that nobody ever says anything.
type Answer struct {
	Verb   rollout.Verb // Approve, Reject, Pass
	After  time.Duration
	Reason string
}

// Absence is a time in which an account's agent is away.
type Absence struct {
	From time.Duration // after the beginning
	For  time.Duration // 0: for good
}

// AtOnce is that people approve as soon as they are asked.
var AtOnce = Answer{Verb: rollout.Approve}

// verbs by the words of a file.
var verbs = map[string]rollout.Verb{"approved": rollout.Approve, "rejected": rollout.Reject, "skipped": rollout.Pass, "never": ""}

// Read reads a file of answers about these targets. It returns all that is wrong with it, in the order of the file.
func Read(name string, text []byte, targets []Target) (Answers, []deployment.Problem) {
	r := &reader{file: name, targets: map[string]Target{}}
	answers := Answers{Otherwise: AtOnce, Targets: map[string]TargetAnswers{}, Accounts: map[string][]Absence{}}
	var accounts []string
	for _, t := range targets {
		r.targets[t.Name] = t
		accounts = append(accounts, t.Account)
	}
	r.fields(r.document(text), "", "key", []string{"otherwise", "targets", "accounts"}, func(key string, n *yaml.Node) {
		switch key {
		case "otherwise":
			answers.Otherwise = r.answer(n, key)
		case "targets":
			r.fields(n, key, "target", slices.Collect(maps.Keys(r.targets)), func(target string, n *yaml.Node) {
				answers.Targets[target] = r.target(n, join(key, target), r.targets[target])
			})
		case "accounts":
			r.fields(n, key, "account", accounts, func(account string, n *yaml.Node) {
				answers.Accounts[account] = r.absences(n, join(key, account))
			})
		}
	})
	return answers, r.problems
}

// reader reads nodes and collects what is wrong with them.
type reader struct {
	file     string
	targets  map[string]Target
	problems []deployment.Problem
}

func (r *reader) fail(n *yaml.Node, field, suggestion, format string, args ...any) {
	r.problems = append(r.problems, deployment.Problem{File: r.file, Field: field, Line: max(n.Line, 1), Column: max(n.Column, 1), Severity: deployment.Error,
		Text: fmt.Sprintf(format, args...), Suggestion: suggestion})
}

var yamlLine = regexp.MustCompile(`^line (\d+): `)

// document is the root of the one document of a file; nil when there is none.
func (r *reader) document(text []byte) *yaml.Node {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var first, second yaml.Node
	err := decoder.Decode(&first)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil {
		if err = decoder.Decode(&second); errors.Is(err, io.EOF) {
			return first.Content[0]
		}
		if err == nil {
			r.fail(second.Content[0], "", "", "a second document; answers are one document")
			return nil
		}
	}
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	at := &yaml.Node{}
	if m := yamlLine.FindStringSubmatch(message); m != nil {
		at.Line, _ = strconv.Atoi(m[1]) // digits
		message = strings.TrimPrefix(message, m[0])
	}
	r.fail(at, "", "", "not valid YAML: %s", message)
	return nil
}

// fields reads the entries of a map whose keys are known; nothing at all is an empty map.
func (r *reader) fields(n *yaml.Node, field, what string, known []string, read func(key string, n *yaml.Node)) {
	n = follow(n)
	if n == nil || n.Tag == "!!null" {
		return
	}
	if n.Kind != yaml.MappingNode {
		r.fail(n, field, "", "a map is expected here, with keys of %s", list(known))
		return
	}
	seen := map[string]bool{}
	for i := 0; i < len(n.Content); i += 2 {
		key := n.Content[i]
		switch {
		case !slices.Contains(known, key.Value):
			r.fail(key, join(field, key.Value), deployment.Nearest(key.Value, known), "there is no %s %s; there are %s", what, key.Value, list(known))
		case seen[key.Value]:
			r.fail(key, join(field, key.Value), "", "%s stands here twice", key.Value)
		default:
			seen[key.Value] = true
			read(key.Value, follow(n.Content[i+1]))
		}
	}
}

func (r *reader) target(n *yaml.Node, field string, t Target) (answers TargetAnswers) {
	answers.Gates = map[string]Answer{}
	r.fields(n, field, "key", []string{"ready", "gates"}, func(key string, n *yaml.Node) {
		switch {
		case key == "ready" && n.Value == "never":
			answers.Ready = Readiness{Never: true}
		case key == "ready":
			answers.Ready = Readiness{Said: true, After: r.duration(n, join(field, key), "or never")}
		default:
			r.fields(n, join(field, key), "gate", t.Gates(), func(gate string, n *yaml.Node) {
				answers.Gates[gate] = r.answer(n, join(field, key, gate))
			})
		}
	})
	return answers
}

// answer reads a word, or a map of the word, when it is said, and why.
func (r *reader) answer(n *yaml.Node, field string) (a Answer) {
	word := n
	if n.Kind == yaml.MappingNode {
		word = nil
		r.fields(n, field, "key", []string{"answer", "after", "reason"}, func(key string, value *yaml.Node) {
			switch key {
			case "answer":
				word = value
			case "after":
				a.After = r.duration(value, join(field, key), "")
			case "reason":
				a.Reason = value.Value
			}
		})
	}
	if word == nil {
		r.fail(n, field, "", "answer is missing: approved, rejected, skipped or never")
		return a
	}
	verb, known := verbs[word.Value]
	if !known {
		r.fail(word, field, deployment.Nearest(word.Value, slices.Sorted(maps.Keys(verbs))), "people answer approved, rejected, skipped or never")
	}
	a.Verb = verb
	return a
}

func (r *reader) absences(n *yaml.Node, field string) (all []Absence) {
	if n.Kind != yaml.SequenceNode {
		r.fail(n, field, "", "a list is expected here: [{away: 10m, for: 1h}]")
		return nil
	}
	for i, item := range n.Content {
		var a Absence
		at := fmt.Sprintf("%s[%d]", field, i)
		r.fields(item, at, "key", []string{"away", "for"}, func(key string, n *yaml.Node) {
			if d := r.duration(n, join(at, key), ""); key == "away" {
				a.From = d
			} else {
				a.For = d
			}
		})
		all = append(all, a)
	}
	return all
}

func (r *reader) duration(n *yaml.Node, field, or string) time.Duration {
	d, err := time.ParseDuration(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil || d < 0 {
		r.fail(n, field, "", "%s", strings.TrimSpace("a time is expected here, as 90s or 1h30m "+or))
	}
	return d
}

// follow is what an alias stands for.
func follow(n *yaml.Node) *yaml.Node {
	if n != nil && n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func join(names ...string) string { return strings.TrimPrefix(strings.Join(names, "."), ".") }

// list is names as a sentence has them, each once.
func list(names []string) string {
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
