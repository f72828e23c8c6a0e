package deployment

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Names of variables below armory., and below our own prefix.
var (
	// TargetVariables are known of each target.
	TargetVariables = []string{"applicationName", "deploymentId", "environmentName", "accountName", "namespace", "replicaSetName"}
	// WindowVariables say what a measurement looks at, in queries.
	WindowVariables = []string{"startTimeIso8601", "startTimeEpochSeconds", "startTimeEpochMillis", "endTimeIso8601", "endTimeEpochSeconds", "endTimeEpochMillis",
		"intervalSeconds", "intervalMillis", "promQlStepInterval"}
	// CallbackVariables say how a webhook calls back.
	CallbackVariables = []string{"callbackUri", "callbackToken"}
)

// filled is texts in which variables are put, and those that are known there.
type filled struct {
	names    []string // below armory.
	exposed  []string // Services that steps make links to
	contexts []string
	secrets  bool
}

// variables warns of each in webhooks and queries that nothing fills: it becomes empty text.
func (r *reader) variables(f *value, text []byte) {
	steps := allSteps(f)
	var exposed []string
	for _, s := range steps {
		exposed = append(exposed, s.get("exposeServices").get("services").strings()...)
	}
	contexts := func(kind string, runs func(step *value) bool) []string {
		names := slices.Concat(f.get("context").names(), f.get("contextOverrides").names())
		for _, s := range steps {
			if step := s.get(kind); step != nil && runs(step) {
				names = append(names, step.get("context").names()...)
			}
		}
		return names
	}
	for i, w := range f.get("webhooks").list() {
		in := filled{names: slices.Concat(TargetVariables, CallbackVariables), exposed: exposed, secrets: true,
			contexts: contexts("runWebhook", func(step *value) bool { return step.get("name").text() == w.get("name").text() })}
		at := fmt.Sprintf("webhooks[%d].", i)
		r.filled(text, w.get("uriTemplate"), at+"uriTemplate", in)
		for j, h := range w.get("headers").list() {
			r.filled(text, h.get("value"), fmt.Sprintf("%sheaders[%d].value", at, j), in)
		}
		r.filled(text, w.get("bodyTemplate").get("inline"), at+"bodyTemplate.inline", in)
	}
	for i, q := range f.get("analysis").get("queries").list() {
		in := filled{names: slices.Concat(TargetVariables, WindowVariables), exposed: exposed,
			contexts: contexts("analysis", func(step *value) bool { return slices.Contains(step.get("queries").strings(), q.get("name").text()) })}
		r.filled(text, q.get("queryTemplate"), fmt.Sprintf("analysis.queries[%d].queryTemplate", i), in)
	}
}

// allSteps is those of all strategies and constraints.
func allSteps(f *value) (all []*value) {
	for _, s := range f.get("strategies").named() {
		all = slices.Concat(all, s.get("canary").get("steps").list(), s.get("blueGreen").get("redirectTrafficAfter").list(), s.get("blueGreen").get("shutDownOldVersionAfter").list())
	}
	for _, t := range f.get("targets").named() {
		constraints := t.get("constraints")
		all = slices.Concat(all, constraints.get("beforeDeployment").list(), constraints.get("afterDeployment").list())
	}
	return all
}

// filled warns of the variables of one template, each once.
func (r *reader) filled(text []byte, template *value, field string, in filled) {
	var told []string
	for _, match := range variable.FindAllStringSubmatch(template.text(), -1) {
		name := match[1]
		if slices.Contains(told, name) {
			continue
		}
		if why, nearest := in.unknown(name); why != "" {
			told = append(told, name)
			r.add(Warning, template.where(text, match[0]), field, nearest, "%s", why)
		}
	}
}

// unknown says why nothing fills a variable, and what may have been meant; "" for one that is filled.
func (in filled) unknown(name string) (why, nearest string) {
	prefix, rest, _ := strings.Cut(name, ".")
	among := func(prefix, name string, known []string) string {
		if near := Nearest(name, known); near != "" {
			return prefix + near
		}
		return ""
	}
	service, preview := strings.CutPrefix(rest, "preview.")
	switch {
	case prefix == "context" && !slices.Contains(in.contexts, rest):
		return fmt.Sprintf("no context of this file has %s; unless --add-context gives it at the start, {{%s}} becomes empty text", cut(rest), cut(name)), among("context.", rest, in.contexts)
	case prefix == "secrets" && !in.secrets:
		return fmt.Sprintf("secrets are filled in in webhooks, and a metric provider has its own in the controller's configuration; {{%s}} becomes empty text", cut(name)), ""
	case prefix == "context" || prefix == "secrets":
		return "", ""
	case prefix != "armory" && prefix != "towpath":
		return fmt.Sprintf("{{%s}} is no variable, and becomes empty text; those that there are begin with armory., context. or secrets.", cut(name)), among("armory.", name, in.names)
	case preview && !slices.Contains(in.exposed, service):
		return fmt.Sprintf("no exposeServices of this file names %s; {{%s}} becomes empty text", cut(service), cut(name)), among(prefix+".preview.", service, in.exposed)
	case !preview && !slices.Contains(in.names, rest):
		return fmt.Sprintf("there is no variable {{%s}} here; it becomes empty text", cut(name)), among(prefix+".", rest, in.names)
	}
	return "", ""
}

// where is the place of a word of a text: where it stands in the file, or, where YAML writes it in another way, that of the text.
func (v *value) where(file []byte, word string) Position {
	lines := bytes.Split(file, []byte("\n"))
	for number := v.at.Line; number <= min(v.at.Line+strings.Count(v.scalar, "\n")+1, len(lines)); number++ {
		line, from := lines[number-1], 0
		if number == v.at.Line {
			from = min(v.at.Column-1, len(line))
		}
		if i := bytes.Index(line[from:], []byte(word)); i >= 0 {
			return Position{number, utf8.RuneCount(line[:from+i]) + 1}
		}
	}
	return v.at
}
