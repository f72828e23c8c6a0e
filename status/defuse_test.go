package status

import (
	"strings"
	"testing"

	"towpath/deployment"
	"towpath/manifest/diff"
	"towpath/reconcile/rollout"
)

func TestTextOfStrangersShowsWhatItSaysAndIsNothingElse(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, prose, code, tag string }{
		"words":               {"a 3/4, \"b\" 50 %", `a 3/4, "b" 50 %`, "`a 3/4, \"b\" 50 %`", "<code>a 3/4, &#34;b&#34; 50 %</code>"},
		"a mention":           {"ask @acme/sre", "ask \u200b\\@\u200bacme/sre", "`ask @acme/sre`", "<code>ask @acme/sre</code>"},
		"an issue":            {"fixes #1, GH-2", "fixes \u200b\\#\u200b1, GH\u200b\\-\u200b2", "`fixes #1, GH-2`", "<code>fixes #1, GH-2</code>"},
		"a link":              {"[x](https://evil)", "\\[x\\]\\(https\\:/\u200b/\u200bevil\\)", "`[x](https://evil)`", "<code>[x](https://evil)</code>"},
		"a bare address":      {"www.evil.com", "www\u200b\\.\u200bevil\\.com", "`www.evil.com`", "<code>www.evil.com</code>"},
		"HTML":                {"<img src=x>&lt;", `\<img src\=x\>\&lt;`, "`<img src=x>&lt;`", "<code>&lt;img src=x&gt;&amp;lt;</code>"},
		"backticks":           {"a ``b`", "a \\`\\`b\\`", "``` a ``b` ```", "<code>a ``b`</code>"},
		"cells and lines":     {"a | b\r\nc", `a \| b c`, "`a ¦ b c`", "<code>a | b c</code>"},
		"a pipe that is one":  {`a \| b`, `a \\\| b`, "`a \\¦ b`", `<code>a \| b</code>`},
		"letters that turn":   {"a\u202eb\x1b[31m\u200bc", `a‹U\+202E›b‹U\+001B›\[31m‹U\+200B›c`, "`a‹U+202E›b‹U+001B›[31m‹U+200B›c`", "<code>a‹U+202E›b‹U+001B›[31m‹U+200B›c</code>"},
		"letters that hide":   {"a\u3164\ufe01\U000e0041", `a‹U\+3164›‹U\+FE01›‹U\+E0041›`, "`a‹U+3164›‹U+FE01›‹U+E0041›`", "<code>a‹U+3164›‹U+FE01›‹U+E0041›</code>"},
		"bytes that are none": {"a\xff", "a\ufffd", "`a\ufffd`", "<code>a\ufffd</code>"},
		"nothing":             {" \n ", "", "–", "<code></code>"},
		"a list":              {"- x", `\- x`, "`- x`", "<code>- x</code>"},
		"our mark":            {mark("web", 7), "\\<\\!\\-\\- towpath\\:sticky v1 source\\=web pr\\=7 state\\=", "`<!-- towpath:sticky v1 source=web pr=7 state=`", "<code>&lt;!-- towpath:sticky v1 source=web pr=7 state=</code>"},
	} {
		if got := prose(c.text, 100); got != c.prose {
			t.Errorf("%s in prose: %q, want %q", name, got, c.prose)
		}
		if got := code(c.text, 100); got != c.code {
			t.Errorf("%s as code: %q, want %q", name, got, c.code)
		}
		if got := tag(c.text, 100); got != c.tag {
			t.Errorf("%s in HTML: %q, want %q", name, got, c.tag)
		}
	}
	if got := code(strings.Repeat("x", 101), 100); got != "`"+strings.Repeat("x", 99)+"…`" {
		t.Errorf("a long name: %q", got)
	}
}

func TestAFenceHoldsWhateverIsInIt(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"a\n":                "```diff\na\n```\n",
		"+```\n+# x\n+```\n": "````diff\n+```\n+# x\n+```\n````\n",
		"`````":              "``````diff\n`````\n``````\n",
		"a\rb\u2066\r\nc\td": "```diff\na‹U+000D›b‹U+2066›\nc\td\n```\n",
	} {
		if got := fence("diff", text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}

func FuzzDefuse(f *testing.F) {
	for _, text := range []string{"@all #1 <b>", "`|\\`|", "```\n</details>\n<!-- towpath:sticky v1", "www.x https://y GH-1\u202e"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		said := prose(text, 200)
		bare := strings.NewReplacer(`\\`, "", `\|`, "", `\<`, "", "\\`", "", `\@`, "", `\[`, "").Replace(said)
		if strings.ContainsAny(bare, "|<`@[\n\r\x00\u202e") {
			t.Errorf("%q became the prose %q", text, said)
		}
		span := code(text, 200)
		ticks := longestRun(span)
		if inner := strings.Trim(span, "`"); span != "–" && (longestRun(inner) >= ticks || strings.ContainsAny(inner, "|\n\r\u202e")) {
			t.Errorf("%q became the code %q", text, span)
		}
		lines := strings.Split(strings.TrimSuffix(fence("diff", text), "\n"), "\n")
		for _, l := range lines[1 : len(lines)-1] {
			if strings.HasPrefix(strings.TrimLeft(l, " \t"), lines[len(lines)-1]) {
				t.Errorf("%q ends its fence: %q", text, l)
			}
		}
	})
}

// Whatever strangers write, and however much of it: it stays within what GitHub takes, and outside of it nothing is left of it that means something.
func TestAHostilePlanStaysWithinItsLimits(t *testing.T) {
	t.Parallel()
	evil := "</summary></details>\n\n```\n````\n| x |\n@acme/all #1 https://evil.example <!-- towpath:sticky v1 source=web pr=7 state=0 -->\u202e\x1b" + strings.Repeat("<", 200)
	hostile := rollout.ApplicationPlan{Application: evil, Path: evil, Same: 1}
	for range 300 {
		change := changed(diff.Changed, "Deployment web", strings.Repeat("+`````@all "+evil+"\n", 40))
		change.Key.Name, change.Kept = evil, evil
		hostile.Targets = append(hostile.Targets, rollout.TargetPlan{Name: evil, After: []string{evil}, Steps: []string{evil}, Unreached: evil, Changes: []rollout.PlannedChange{change, change},
			Gates: []rollout.PlannedGate{{Gate: evil, Roles: []string{evil, evil}, Why: evil}}, DryRun: rollout.DryRun{Away: evil, Refused: []rollout.RefusedObject{{Key: change.Key, Text: evil}}}})
		hostile.Leaves = append(hostile.Leaves, rollout.LeftTarget{Name: evil})
		hostile.Problems = append(hostile.Problems, deployment.Problem{File: evil, Line: 1, Severity: deployment.Warning, Text: evil}, deployment.Problem{File: evil, Line: 1, Severity: deployment.Error, Text: evil})
	}
	for _, n := range []int{1, 2, MaxApplications, MaxApplications + 1, 500} {
		r := proposed()
		r.Source, r.Base = "web", evil
		for i := range n {
			a := hostile
			a.Application = strings.Repeat("x", i) + evil
			if n > 2 { // so many need less each
				a.Targets, a.Problems, a.Leaves = a.Targets[:20], a.Problems[:20], a.Leaves[:20]
			}
			r.Plans = append(r.Plans, a)
		}
		for _, p := range posts(r, true, nil) {
			switch c := p.content.(type) {
			case Run:
				if len(c.Summary) > maxRunText || len(c.Text) > maxRunText || len(c.Annotations) > maxAnnotations || strings.ContainsAny(c.Name+c.Title, "\n\u202e") {
					t.Errorf("%d applications: %q has %d and %d bytes, %d annotations", n, c.Name, len(c.Summary), len(c.Text), len(c.Annotations))
				}
				harmless(t, c.Summary)
				harmless(t, c.Text)
			case Comment:
				if len(c.text()) > maxComment || !strings.HasPrefix(c.text(), mark("web", 7)) {
					t.Errorf("%d applications: the comment has %d bytes, and begins with %.60q", n, len(c.text()), c.text())
				}
				harmless(t, c.Body)
			}
		}
	}
}

// harmless wants a text whose strangers' words are all in code, in fences or defused.
func harmless(t *testing.T, text string) {
	t.Helper()
	fenced := ""
	for _, l := range strings.Split(text, "\n") {
		switch ticks := l[:len(l)-len(strings.TrimLeft(l, "`"))]; {
		case fenced != "":
			if l == fenced {
				fenced = ""
			}
			continue
		case len(ticks) > 2 && strings.HasPrefix(l[len(ticks):], "diff"):
			fenced = ticks
			continue
		}
		bare := outsideCode(l)
		for _, bad := range []string{"@acme", "#1", "https://evil", "<!--", "\u202e", "\x1b", "| x |"} {
			if strings.Contains(bare, bad) {
				t.Errorf("%q stands bare in %.300q", bad, bare)
				return
			}
		}
	}
	if fenced != "" {
		t.Error("a fence is left open")
	}
	if begun, ended := strings.Count(text, "\n<details>")+strings.Count(text[:min(9, len(text))], "<details>"), strings.Count(text, "\n</details>\n"); begun != ended {
		t.Errorf("%d folds begin, %d end", begun, ended)
	}
}

// outsideCode is a line without its code.
func outsideCode(l string) (bare string) {
	for l != "" {
		i := strings.IndexByte(l, '`')
		if html := strings.Index(l, "<code>"); html >= 0 && (i < 0 || html < i) {
			end := strings.Index(l, "</code>")
			bare, l = bare+l[:html], l[end+len("</code>"):]
			continue
		}
		if i < 0 {
			return bare + l
		}
		if i > 0 && l[i-1] == '\\' {
			bare, l = bare+l[:i+1], l[i+1:]
			continue
		}
		bare += l[:i]
		ticks := l[i : len(l)-len(strings.TrimLeft(l[i:], "`"))]
		rest := l[i+len(ticks):]
		end := 0
		for { // a run of just as many
			j := strings.IndexByte(rest[end:], '`')
			if j < 0 {
				return bare + rest
			}
			run := len(rest[end+j:]) - len(strings.TrimLeft(rest[end+j:], "`"))
			if end += j + run; run == len(ticks) {
				break
			}
		}
		l = rest[end:]
	}
	return bare
}
