package rules

import "strings"

// IsTest reports whether a file of this name holds test cases of rules, and no rules.
func IsTest(name string) bool {
	return strings.HasSuffix(name, "_test.yaml") || strings.HasSuffix(name, "_test.yml")
}
