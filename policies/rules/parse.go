package rules

import (
	"fmt"
	"regexp"
	"slices"

	"cel.dev/cel-go/cel"
	"go.yaml.in/yaml/v3"

	"towpath/deployment"
)

// File is a policy file.
type File struct {
	Path   string
	Source string // that it comes from, for messages: "source platform"; "": it lies on a disk
	Text   []byte
}

// Limits of one set.
const (
	maxFiles = 100
	maxTotal = 1 << 20 // bytes
)

// Parse reads policy files. It returns all problems, file by file and in the order of each; there are no rules when there is any.
func Parse(files []File) (Set, []deployment.Problem) {
	total := 0
	for i, f := range files {
		if total += len(f.Text); i >= maxFiles || total > maxTotal {
			return Set{}, []deployment.Problem{{File: f.Path, Line: 1, Column: 1, Severity: deployment.Error,
				Text: fmt.Sprintf("with this file there are more than %d policy files, or more than %d bytes of them; no more are taken", maxFiles, maxTotal)}}
		}
	}
	var set Set
	var problems []deployment.Problem
	base := language()
	for _, f := range files {
		r := &reader{file: f.Path}
		set.rules = append(set.rules, r.policies(base, f)...)
		problems = append(problems, r.sorted()...)
	}
	if len(problems) > 0 {
		return Set{}, problems
	}
	return set, nil
}

// policies reads a policy file.
func (r *reader) policies(base *cel.Env, f File) []rule {
	root, ok := r.document(f.Text, "policies")
	if !ok {
		return nil
	}
	fields := r.fields(root, "version", "kind", "use", "rules")
	r.required(root, fields, "version", "kind")
	r.word(fields["version"], "v1")
	r.word(fields["kind"], "policies")
	names := map[string]bool{}
	var all []rule
	take := func(read rule, e entry) {
		read.from = fmt.Sprintf("%s:%d", f.Path, e.node.Line)
		if f.Source != "" {
			read.from += " of " + f.Source
		}
		if read.name != "" && names[read.name] {
			r.fail(e.at(), e.path, "a second rule named %s", read.name)
		}
		names[read.name] = true
		all = append(all, read)
	}
	for _, e := range r.items(fields["use"], maxRules) {
		take(r.used(base, e), e)
	}
	for _, e := range r.items(fields["rules"], maxRules) {
		take(r.rule(base, e), e)
	}
	if len(all) == 0 && len(r.problems) == 0 {
		r.fail(root.at(), "", "the file has no rules; name some of the library under use, or write some under rules")
	}
	return all
}

var ruleName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

func (r *reader) rule(base *cel.Env, e entry) rule {
	fields := r.fields(e, "name", "match", "except", "on", "variables", "require", "otherwise", "message")
	r.required(e, fields, "name", "require", "message")
	read := rule{name: r.text(fields["name"]), on: []Operation{Apply}}
	if name, said := fields["name"]; said && !ruleName.MatchString(read.name) {
		r.fail(name.at(), name.path, "%q is no name of a rule: small letters, digits and -, at most 63", shorten(read.name))
	}
	r.scope(&read, fields)
	if on, said := fields["on"]; said {
		read.on = nil
		for _, item := range r.items(on, 2) {
			read.on = append(read.on, Operation(r.word(item, string(Apply), string(Remove))))
		}
	}
	env := r.variables(base, &read, fields["variables"])
	if require, said := fields["require"]; said {
		in := r.scalar(require)
		read.require, _ = r.compile(env, in.value, in, cel.BoolType)
	}
	if text, said := fields["message"]; said {
		if in := r.scalar(text); len(in.value) > maxExpression {
			r.fail(text.at(), text.path, "the message has %d bytes; at most %d are taken", len(in.value), maxExpression)
		} else {
			read.message = r.template(env, in)
		}
	}
	return read
}

// scope reads what a rule is about, and how much it weighs: what may also be said of a rule of the library. What is not said stays as it is.
func (r *reader) scope(to *rule, fields map[string]entry) {
	if e, said := fields["match"]; said {
		r.match(&to.match, e)
	}
	if e, said := fields["except"]; said {
		r.match(&to.except, e)
		if to.except.empty() {
			r.fail(e.at(), e.path, "except names nothing; what it names is passed over")
		}
	}
	if e, said := fields["otherwise"]; said || to.severity == "" {
		to.severity = deployment.Error
		if r.word(e, "deny", "warn") == "warn" {
			to.severity = deployment.Warning
		}
	}
}

func (r *reader) match(to *match, e entry) {
	lists := map[string]*[]string{"kinds": &to.kinds, "targets": &to.targets, "accounts": &to.accounts, "namespaces": &to.namespaces, "applications": &to.applications}
	for name, f := range r.fields(e, "kinds", "targets", "accounts", "namespaces", "applications") {
		*lists[name] = r.patterns(f)
	}
}

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,62}$`)

// variables reads the variables of a rule; each may name those before it.
func (r *reader) variables(env *cel.Env, to *rule, e entry) *cel.Env {
	if e.node == nil {
		return env
	}
	if e.node.Kind != yaml.MappingNode || len(e.node.Content) > 2*maxVariables {
		r.fail(e.at(), e.path, "variables is a map of names and expressions, at most %d", maxVariables)
		return env
	}
	for _, p := range r.pairs(e) {
		if !variableName.MatchString(p.key.Value) {
			r.fail(p.at(), e.path, "%q is no name of a variable: letters, digits and _", shorten(p.key.Value))
			continue
		}
		in := r.scalar(p.entry)
		program, is := r.compile(env, in.value, in)
		if program == nil {
			is = cel.DynType // what names it is read all the same
		}
		to.variables = append(to.variables, variable{p.key.Value, program})
		extended, err := env.Extend(cel.Variable(inVariables+p.key.Value, is))
		if err != nil {
			r.fail(p.at(), e.path, "%v", err)
			continue
		}
		env = extended
	}
	return env
}

// used reads an entry of use: the name of a rule of the library, or a map that says what is other than there.
func (r *reader) used(base *cel.Env, e entry) rule {
	name, fields := e, map[string]entry(nil)
	if e.node.Kind == yaml.MappingNode {
		fields = r.fields(e, "rule", "match", "except", "otherwise")
		if r.required(e, fields, "rule"); fields["rule"].node == nil {
			return rule{}
		}
		name = fields["rule"]
	}
	known := Library()
	if r.word(name, known...) == "" {
		return rule{}
	}
	read := fromLibrary(base, name.node.Value)
	if slices.Contains(needsTargets, read.name) && fields["match"].node == nil {
		r.fail(name.at(), name.path, "%s is about production: say which targets those are, as {rule: %s, match: {targets: [prod*]}}", read.name, read.name)
	}
	r.scope(&read, fields)
	return read
}
