package deployment

import (
	"regexp"
	"slices"
	"strings"
)

// mostUnfilled is how many variables that nothing fills are told of.
const mostUnfilled = 10

// variable is {{NAME}}, blanks inside the braces allowed.
var variable = regexp.MustCompile(`\{\{\s*([A-Za-z0-9_.\-]+)\s*\}\}`)

// Fill replaces each variable of a template by what value says of its name; names under our own prefix, towpath., are asked for as armory. ones. An
// unknown variable becomes empty text, as in Mustache; the first ten are listed, each once and cut to what people read.
func Fill(template string, value func(name string) (string, bool)) (filled string, unknown []string) {
	return replace(template, value, func(string) string { return "" })
}

// FillKnown is Fill for texts that may hold braces of others: an unknown variable stays as it is.
func FillKnown(template string, value func(name string) (string, bool)) string {
	filled, _ := replace(template, value, func(match string) string { return match })
	return filled
}

func replace(template string, value func(name string) (string, bool), otherwise func(match string) string) (filled string, unknown []string) {
	filled = variable.ReplaceAllStringFunc(template, func(match string) string {
		name := variable.FindStringSubmatch(match)[1]
		if rest, found := strings.CutPrefix(name, "towpath."); found {
			name = "armory." + rest
		}
		text, known := value(name)
		if !known {
			if told := cut(name); len(unknown) < mostUnfilled && !slices.Contains(unknown, told) {
				unknown = append(unknown, told)
			}
			return otherwise(match)
		}
		return text
	})
	return filled, unknown
}

// Unfilled says of variables, as Fill lists them, that they became empty text; "" of none.
func Unfilled(names []string) string {
	switch len(names) {
	case 0:
		return ""
	case 1:
		return "{{" + names[0] + "}} was filled with nothing"
	}
	return "{{" + strings.Join(names, "}}, {{") + "}} were filled with nothing"
}

// Contexts joins contexts, the weakest first: of the file, of the step, the file's overrides, what a flag adds.
func Contexts(weakestFirst ...map[string]string) map[string]string {
	all := map[string]string{}
	for _, context := range weakestFirst {
		for name, text := range context {
			all[name] = text
		}
	}
	return all
}
