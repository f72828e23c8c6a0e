package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"towpath/internal/testkit/pages"
	"towpath/policies/rules"
)

func TestTheRulesOfTheExamplesKeepTheirCases(t *testing.T) {
	dir := filepath.Join(pages.Root(t), "examples", "policies")
	read := func(name string) []byte {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	tests, problems := rules.ParseTests("all_test.yaml", read("all_test.yaml"))
	var files []rules.File
	for _, name := range tests.Policies {
		files = append(files, rules.File{Path: name, Text: read(name)})
	}
	set, more := rules.Parse(files)
	if problems = append(problems, more...); len(problems) > 0 {
		t.Fatalf("%+v", problems)
	}
	for _, c := range tests.Cases {
		if lines := set.Differs(c); len(lines) > 0 {
			t.Errorf("%s:\n%s", c.Name, strings.Join(lines, "\n"))
		}
	}
}

func TestThePageOfPoliciesNamesTheLibraryAndItsYAMLIsGood(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(pages.Root(t), "docs", "how-to", "policies.md"))
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	_, ready, _ := strings.Cut(page, "### Ready rules")
	ready, _, _ = strings.Cut(ready, "## Try them")
	var named []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\|").FindAllStringSubmatch(ready, -1) {
		named = append(named, row[1])
	}
	slices.Sort(named)
	if !slices.Equal(named, rules.Library()) {
		t.Errorf("the page names %v, the library has %v", named, rules.Library())
	}
	seen := 0
	for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(page, -1) {
		problems := 0
		switch {
		case strings.Contains(block[1], "kind: policies"):
			_, found := rules.Parse([]rules.File{{Path: "policies.md", Text: []byte(block[1])}})
			problems = len(found)
		case strings.Contains(block[1], "kind: policy-tests"):
			_, found := rules.ParseTests("policies.md", []byte(block[1]))
			problems = len(found)
		default:
			continue
		}
		if seen++; problems > 0 {
			t.Errorf("the page shows what is refused:\n%s", block[1])
		}
	}
	if seen != 2 {
		t.Errorf("%d policy files on the page", seen)
	}
}
