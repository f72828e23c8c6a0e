package render

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"text/template/parse"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chartutil"

	"towpath/manifest"
)

// unstableFunctions are those whose result is another one at each render, or would be another one where a cluster or a network is asked. hidden ones do not
// show when a chart is rendered twice within a moment.
var unstableFunctions = map[string]struct {
	why    string
	hidden bool
}{
	"lookup":        {"which finds nothing here: no cluster is asked while rendering", true},
	"getHostByName": {"which finds nothing here: no name server is asked while rendering", true},
	"now":           {differs, true}, "ago": {differs, true},
	"randAlphaNum": {differs, false}, "randAlpha": {differs, false}, "randNumeric": {differs, false}, "randAscii": {differs, false}, "randBytes": {differs, false},
	"randInt": {differs, false}, "uuidv4": {differs, false}, "shuffle": {differs, false}, "bcrypt": {differs, false}, "htpasswd": {differs, false},
	"encryptAES": {differs, false}, "genPrivateKey": {differs, false}, "genCA": {differs, false}, "genCAWithKey": {differs, false},
	"genSelfSignedCert": {differs, false}, "genSelfSignedCertWithKey": {differs, false}, "genSignedCert": {differs, false}, "genSignedCertWithKey": {differs, false},
}

const differs = "whose result is another one at each render"

// finding is what in a chart may come out differently another time.
type finding struct {
	said      []string // a sentence for each
	objects   []source // that came out differently the second time
	templates []string // of whose objects nobody can say so, as they depend on the time
}

// compare holds two renders of one chart against each other, and looks into the templates that made something.
func compare(first, second charted, calls *templates) finding {
	var found finding
	differing := map[string]string{} // template → name of an object
	for _, way := range [][2][]manifest.Object{{first.objects, second.objects}, {second.objects, first.objects}} {
		there := map[[2]string]bool{}
		for _, o := range way[1] {
			there[[2]string{o.Source, string(o.JSON)}] = true
		}
		for _, o := range way[0] {
			if !there[[2]string{o.Source, string(o.JSON)}] {
				found.objects = append(found.objects, sourceOf(o))
				if differing[templateOf(o)] == "" {
					differing[templateOf(o)] = o.Key.String()
				}
			}
		}
	}
	var done []string
	for _, o := range slices.Concat(first.objects, second.objects) {
		if template := templateOf(o); !slices.Contains(done, template) {
			done = append(done, template)
			found.template(template, calls.functions(template), differing[template], o.Key.String())
		}
	}
	return found
}

// template adds what is to be said of a template that made an object. differing is one of its objects that came out differently, "" when none did.
func (f *finding) template(name string, functions []string, differing, object string) {
	where := "for " + object
	if differing != "" {
		where = "seen at " + differing
	}
	for _, function := range functions {
		of := unstableFunctions[function]
		f.said = append(f.said, fmt.Sprintf("%s uses %s, %s (%s)", name, function, of.why, where))
		if of.hidden && of.why == differs && !slices.Contains(f.templates, name) {
			f.templates = append(f.templates, name)
		}
	}
	if len(functions) == 0 && differing != "" {
		f.said = append(f.said, fmt.Sprintf("%s comes out differently at each render (%s)", name, where))
	}
}

func sourceOf(o manifest.Object) source { return source{o.Source, o.Kind, o.Name} }

// templateOf is the template that an object of a chart is from.
func templateOf(o manifest.Object) string {
	name, _, _ := strings.Cut(o.Source, " (")
	return name
}

// body is what one template, or part of one, calls.
type body struct {
	functions []string   // unstable ones
	includes  []string   // templates by name
	computed  [][]string // templates whose name is computed: the parts of it that are written
	tpl       bool       // a text that is known only once values are is rendered as a template
	texts     []string   // texts in it that could be that
	unordered bool       // it lists a map in an order that is another one at each render
}

// fixed reports whether nothing in it could come out differently another time.
func (b *body) fixed() bool { return len(b.functions) == 0 && !b.tpl && !b.unordered }

// templates are the bodies of a chart's templates and of what they define, by name. A name that is defined twice has the bodies of both.
type templates struct {
	bodies map[string][]body
	tpl    bool     // one of them calls it
	varied bool     // one of them could come out differently another time, and only a second render shows whether it does
	given  []string // texts of values, files and templates that it could be given
}

// given is the name under which templates has what tpl could be given; no template has it.
const given = "\x00given"

// newTemplates reads the templates of a chart and of those below it. values are those it is rendered with.
func newTemplates(c *chart.Chart, values any) *templates {
	t := &templates{bodies: map[string][]body{}}
	t.chart(c)
	if t.tpl {
		t.give(values)
		for _, text := range slices.Clone(t.given) {
			t.read(given, text)
		}
	}
	return t
}

func (t *templates) chart(c *chart.Chart) {
	for _, file := range c.Templates {
		t.read(path.Join(c.ChartFullPath(), file.Name), string(file.Data))
	}
	for _, file := range c.Files {
		if path.Ext(file.Name) != ".md" { // those are for people
			t.give(string(file.Data))
		}
	}
	for _, sub := range c.Dependencies() {
		t.chart(sub)
	}
}

// read takes a template in, with what it defines. One that cannot be parsed is none: it has failed where it was rendered.
func (t *templates) read(name, text string) {
	tree := parse.New(name)
	tree.Mode = parse.SkipFuncCheck
	all := map[string]*parse.Tree{}
	if _, err := tree.Parse(text, "", "", all); err != nil {
		return
	}
	for name, defined := range all {
		var b body
		b.node(defined.Root)
		t.bodies[name], t.tpl, t.varied = append(t.bodies[name], b), t.tpl || b.tpl, t.varied || !b.fixed()
		for _, text := range b.texts {
			t.give(text)
		}
	}
}

// give keeps the texts in a value that hold a template.
func (t *templates) give(value any) {
	switch v := value.(type) {
	case string:
		if strings.Contains(v, "{{") {
			t.given = append(t.given, v)
		}
	case chartutil.Values:
		t.give(map[string]any(v))
	case map[string]any:
		for _, inner := range v {
			t.give(inner)
		}
	case []any:
		for _, inner := range v {
			t.give(inner)
		}
	}
}

// functions lists the unstable functions that a template calls, itself or by what it includes. Where a name is computed, or a text becomes a template, all that
// it could be counts, and there only what two renders do not show: an included library has more in it than is called.
func (t *templates) functions(name string) []string {
	var functions []string
	seen := map[string]bool{} // name → for certain
	var follow func(name string, certain bool)
	follow = func(name string, certain bool) {
		if before, been := seen[name]; been && (before || !certain) {
			return
		}
		seen[name] = certain
		for _, b := range t.bodies[name] {
			for _, function := range b.functions {
				if (certain || unstableFunctions[function].hidden) && !slices.Contains(functions, function) {
					functions = append(functions, function)
				}
			}
			for _, included := range b.includes {
				follow(included, certain)
			}
			for _, parts := range b.computed {
				for candidate := range t.bodies {
					if !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(candidate, part) }) {
						follow(candidate, false)
					}
				}
			}
			if b.tpl {
				follow(given, false)
			}
		}
	}
	follow(name, true)
	slices.Sort(functions)
	return functions
}

// node takes in what a node of a template calls.
func (b *body) node(n parse.Node) {
	switch n := n.(type) {
	case *parse.ListNode:
		if n != nil {
			for _, inner := range n.Nodes {
				b.node(inner)
			}
		}
	case *parse.ActionNode:
		b.node(n.Pipe)
	case *parse.IfNode:
		b.branch(&n.BranchNode)
	case *parse.RangeNode:
		b.branch(&n.BranchNode)
	case *parse.WithNode:
		b.branch(&n.BranchNode)
	case *parse.TemplateNode:
		b.includes = append(b.includes, n.Name)
		b.node(n.Pipe)
	case *parse.PipeNode:
		if n != nil {
			for _, command := range n.Cmds {
				b.command(command)
			}
		}
	case *parse.ChainNode:
		b.node(n.Node)
	case *parse.IdentifierNode:
		if _, unstable := unstableFunctions[n.Ident]; unstable {
			b.functions = append(b.functions, n.Ident)
		}
		b.tpl = b.tpl || n.Ident == "tpl"
		b.unordered = b.unordered || n.Ident == "keys" || n.Ident == "values"
	case *parse.StringNode:
		b.texts = append(b.texts, n.Text)
	}
}

func (b *body) branch(n *parse.BranchNode) {
	b.node(n.Pipe)
	b.node(n.List)
	b.node(n.ElseList)
}

func (b *body) command(n *parse.CommandNode) {
	for _, argument := range n.Args {
		b.node(argument)
	}
	if called, ok := n.Args[0].(*parse.IdentifierNode); !ok || called.Ident != "include" {
		return
	}
	if len(n.Args) < 2 {
		b.computed = append(b.computed, nil) // the name comes by the pipe
		return
	}
	if name, ok := n.Args[1].(*parse.StringNode); ok {
		b.includes = append(b.includes, name.Text)
		return
	}
	var name body
	name.node(n.Args[1])
	var parts []string
	for _, text := range name.texts {
		parts = append(parts, formatVerb.Split(text, -1)...)
	}
	b.computed = append(b.computed, parts)
}

// formatVerb is what printf fills in.
var formatVerb = regexp.MustCompile(`%[^a-zA-Z%]*[a-zA-Z%]`)
