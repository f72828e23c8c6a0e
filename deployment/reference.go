package deployment

import (
	"fmt"
	"slices"
	"strings"
)

// Reference is the reference page of the deployment file: its keys, then a section for each that holds others, then the steps.
func Reference() string {
	var out strings.Builder
	out.WriteString(referenceHead)
	file := fileShape()
	table(&out, "The file", func() {
		for _, k := range file.keys {
			_, path := k.shape.inside(k.name)
			row(&out, path, k)
		}
	})
	for _, k := range file.keys {
		if inner, path := k.shape.inside(k.name); len(inner.keys) > 0 {
			table(&out, path, func() { rows(&out, "", inner) })
		}
	}
	steps := stepShape([]string{"setWeight", "pause", "analysis", "runWebhook", "exposeServices"})
	table(&out, "Steps", func() { rows(&out, "", steps) })
	out.WriteString("\n## What the JSON Schema does not know\n\n`towpath validate` and the controller refuse what the schema refuses, but for the flaws above, and hold a file against these rules as well:\n\n")
	for _, rule := range beyondSchema {
		fmt.Fprintf(&out, "- %s\n", rule)
	}
	return out.String()
}

// beyondSchema are the rules that only the reader knows.
var beyondSchema = []string{
	"What a name refers to is there: targets in `dependsOn` and `targetFilters`, queries and webhooks in steps. `dependsOn` goes in no circle.",
	"A chart comes from one place: `path`, or `repository` with `chart`, or `chart: oci://…`. One that is not in the Git repository has a `version`; a `repository` is an http:// or https:// address.",
	"A pause has `duration` with `unit`, or `untilApproved: true`.",
	"An analysis step has `units`, or `unit`, or both alike. Each of its queries has a metric provider: its own, the step's, or the default.",
	"An analysis with `baseline: true` stands in a canary, at a weight from 1 to 50. It has at least 5 runs, which look back one interval, and each of its queries names `{{armory.replicaSetName}}`.",
	"A query has `upperLimit` or `lowerLimit`, and a name of its own.",
	"An entry of `trafficManagement` has one of `kubernetes`, `smi`, `istio`, `gateway`.",
	"The timeout is at least 60 seconds. The `ttl` of `exposeServices` is 1 minute to 24 hours, and its `services` are names as Kubernetes has them.",
	"A whole number is written in digits: `10`, not `10.0`.",
	"A key stands in one spelling: not `defaultAccount` beside `defaultMetricProviderName`.",
	"A file is one document.",
}

const referenceHead = `# The deployment file

One YAML document. Generated from the types that read it; do not edit. ` + "`towpath validate FILE`" + ` checks a file, ` + "`towpath schema`" + ` prints the JSON Schema for editors, and
[concepts.md](../concepts.md) says what the words mean.

In the tables, ` + "`NAME`" + ` stands for a name of yours and ` + "`[]`" + ` for each entry of a list. Marks:

- **required**: the file is refused without it (where the object around it is there).
- **ours**: no key of the hosted product whose files load here; everything else is as it was there.
- **no effect**: known from older files, and warned about.

The flaws that older files got away with load with a warning: a key in other letter case, a map where a list is expected, ` + "`setWeight: 10`" + `, a name under
` + "`manifests[].targets`" + ` that is no target. Every other unknown key is an error that names the nearest known one.
`

func table(out *strings.Builder, title string, rows func()) {
	fmt.Fprintf(out, "\n## %s\n\n| key | type | meaning | default |\n|---|---|---|---|\n", title)
	rows()
}

// rows are the keys of an object and of the objects inside it. Steps have a section of their own.
func rows(out *strings.Builder, prefix string, s *shape) {
	for _, k := range s.keys {
		inner, path := k.shape.inside(prefix + k.name)
		row(out, path, k)
		if !inner.isStep() {
			rows(out, path+".", inner)
		}
	}
}

func row(out *strings.Builder, path string, k key) {
	fmt.Fprintf(out, "| `%s` | %s | %s | %s |\n", path, cell(k.shape.typeName()), cell(k.meaning()), cell(k.defaultText()))
}

// isStep reports whether it is one of the steps of a strategy or constraint: what holds them names those that may stand there.
func (s *shape) isStep() bool { return slices.Contains(s.choice, "pause") }

// inside is the object in a value, through lists and maps, with the path that leads to it.
func (s *shape) inside(path string) (*shape, string) {
	for ; s.item != nil; s = s.item {
		if s.kind == list {
			path += "[]"
		} else {
			path += ".NAME"
		}
	}
	return s, path
}

func (k key) meaning() string {
	switch {
	case k.void:
		return "**no effect**"
	case k.means != "":
		return "early spelling of " + k.means
	}
	text := k.doc
	if k.ours {
		text += ". **ours**"
	}
	return text
}

func (k key) defaultText() string {
	if k.required {
		return "required"
	}
	return k.def
}

// typeName is what may be written, in words.
func (s *shape) typeName() string {
	switch s.kind {
	case object:
		if len(s.choice) > 0 && len(s.choice) == len(s.keys) {
			return "exactly one of its keys"
		}
		return "object"
	case list:
		return "list of " + s.item.plural() + atLeast(s.least)
	case mapping:
		return "map of name → " + s.item.typeName()
	case text:
		return "text"
	case whole:
		if s.most > 0 {
			return fmt.Sprintf("whole number, %d–%d", s.least, s.most)
		}
		return fmt.Sprintf("whole number, at least %d", s.least)
	case decimal:
		return "number"
	case truth:
		return "true or false"
	case word:
		if len(s.words) == 1 {
			return s.words[0]
		}
		return "one of " + strings.Join(s.words, ", ")
	}
	return "anything"
}

func (s *shape) plural() string {
	switch {
	case s.isStep():
		return "[steps](#steps): " + strings.Join(s.names(), ", ")
	case s.kind == object, s.kind == text:
		return s.typeName() + "s"
	}
	return s.typeName()
}

func atLeast(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(", at least %d", n)
}

// cell is a text inside a table.
func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "{{", "`{{", "}}", "}}`").Replace(text)
}
