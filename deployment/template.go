package deployment

import (
	"regexp"
	"strings"
)

// variable is {{NAME}}, blanks inside the braces allowed.
var variable = regexp.MustCompile(`\{\{\s*([A-Za-z0-9_.\-]+)\s*\}\}`)

// Fill replaces each variable of a template by what value says of its name; names under our own prefix, towpath., are asked for as armory. ones. An
// unknown variable becomes empty text, as in Mustache, and is listed.
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
			unknown = append(unknown, name)
			return otherwise(match)
		}
		return text
	})
	return filled, unknown
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
