package status_test

import (
	"strings"
	"testing"

	"towpath/status"
)

// asked is a command as the tests write it: what it asks for, or why it is wrong.
func asked(c status.Command) string {
	if c.Wrong != "" {
		return "wrong: " + c.Wrong
	}
	text := strings.TrimSpace(c.Verb + " " + c.Of)
	if c.Reason != "" {
		text += ": " + c.Reason
	}
	return text
}

const (
	fullSHA  = "0123456789abcdef0123456789abcdef01234567"
	allVerbs = "approve, cancel, help, pause, plan, reject, resume, retry, skip, status"
)

func TestOnlyWhatAPersonSaysPlainlyIsACommand(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		body string
		want []string
	}{
		"a command":                        {"/towpath approve prod", []string{"approve prod"}},
		"in whatever case":                 {"/Towpath APPROVE Prod", []string{"approve Prod"}},
		"after words, before words":        {"Looks good!\n/towpath approve prod\nthank you", []string{"approve prod"}},
		"with blanks before it":            {"  \t/towpath approve prod  ", nil}, // a tab makes code of it
		"behind a few blanks":              {"   /towpath approve prod  ", []string{"approve prod"}},
		"behind many, within a paragraph":  {"so:\n        /towpath approve prod", []string{"approve prod"}},
		"several, with Windows' line ends": {"/towpath approve a\r\n/towpath reject b\r\n\r\n/towpath status\r\n", []string{"approve a", "reject b", "status"}},
		"of an application":                {"/towpath approve shop/prod-eu", []string{"approve shop/prod-eu"}},
		"all":                              {"/towpath approve all", []string{"approve all"}},
		"with a reason":                    {`/towpath reject prod --reason "errors rise, see #7"`, []string{"reject prod: errors rise, see #7"}},
		"with the quotes of a telephone":   {`/towpath reject --reason “errors rise” prod`, []string{"reject prod: errors rise"}},
		"with a reason of one word":        {`/towpath skip prod --reason=late`, []string{"skip prod: late"}},
		"with a reason behind a sign":      {`/towpath skip prod --reason="too late"`, []string{"skip prod: too late"}},
		"with a commit":                    {"/towpath plan " + fullSHA, []string{"plan " + fullSHA}},
		"five and no more":                 {strings.Repeat("/towpath status\n", 9), []string{"status", "status", "status", "status", "status", "status"}},
		"after a comment in HTML":          {"<!-- a note -->\n\n/towpath status", []string{"status"}},
		"after a quote, apart from it":     {"> shall I?\n\n/towpath approve prod", []string{"approve prod"}},

		"none":                                     {"looks good to me", nil},
		"in a sentence":                            {"say /towpath approve prod", nil},
		"another word":                             {"/towpathology approve prod", nil},
		"Prow's":                                   {"/approve", nil},
		"in a quote":                               {"> /towpath approve prod", nil},
		"in a quote that goes on lazily":           {"> they said\n/towpath approve prod", nil},
		"in a quote in a quote":                    {"> > they said\n/towpath approve prod", nil},
		"in a list":                                {"- first\n- /towpath approve prod", nil},
		"in a list that goes on lazily":            {"1. they said\n/towpath approve prod", nil},
		"in a fence":                               {"```\n/towpath approve prod\n```", nil},
		"in a fence of tildes with words":          {"~~~ sh\n\n/towpath approve prod\n\n~~~", nil},
		"in a fence without an end":                {"````\n```\n/towpath approve prod", nil},
		"indented as code":                         {"so:\n\n    /towpath approve prod", nil},
		"in code within a paragraph":               {"it is `\n/towpath approve prod\n` then", nil},
		"in code at a line's start":                {"`/towpath approve prod`", nil},
		"in a heading":                             {"# /towpath approve prod", nil},
		"underlined as a heading":                  {"/towpath approve prod\n---", nil},
		"in a table":                               {"/towpath approve | prod\n---|---\nx | y", nil},
		"in an HTML comment":                       {"<!--\n\n/towpath approve prod\n\n-->", nil},
		"in an HTML comment within a paragraph":    {"hello <!--\n/towpath approve prod\n--> there", nil},
		"in an HTML comment without an end":        {"<!--\n\n/towpath approve prod", nil},
		"in a fold":                                {"<details>\n\n/towpath approve prod\n\n</details>", nil},
		"in a quote of HTML":                       {"<blockquote>\n\n/towpath approve prod\n\n</blockquote>", nil},
		"in preformatted text":                     {"<pre>\n\n/towpath approve prod\n\n</pre>", nil},
		"in code of HTML within a paragraph":       {"hello <code>\n/towpath approve prod</code>", nil},
		"in the words of a link":                   {"[hello\n/towpath approve prod](https://example.com)", nil},
		"in the title of a link":                   {"[hello](https://example.com \"\n/towpath approve prod\n\")", nil},
		"in the definition of a link":              {"[hello]: https://example.com '\n/towpath approve prod\n'\n", nil},
		"struck out":                               {"~~no\n/towpath approve prod~~", nil},
		"emphasized":                               {"*\u200b\n/towpath approve prod*", nil},
		"in a footnote":                            {"a[^1]\n\n[^1]: they said\n/towpath approve prod", nil},
		"escaped":                                  {"\\/towpath approve prod", nil},
		"as an entity":                             {"&#47;towpath approve prod", nil},
		"behind a letter that nobody sees":         {"\u200b/towpath approve prod", nil},
		"with letters that nobody sees":            {"/towpath approve pr\u200bod", []string{"wrong: it holds letters that nobody sees; write it anew, without them"}},
		"turned around":                            {"/towpath approve \u202edorp", []string{"wrong: it holds letters that nobody sees; write it anew, without them"}},
		"with no verb":                             {"/towpath", []string{"wrong: it lacks a verb: " + allVerbs}},
		"with a slip of the pen":                   {"/towpath aprove prod", []string{"wrong: there is no verb aprove; did you mean approve?"}},
		"with a verb unlike any":                   {"/towpath frobnicate", []string{"wrong: there is no verb frobnicate; there are " + allVerbs}},
		"with two targets":                         {"/towpath approve prod staging", []string{"wrong: approve takes one target, so what is staging? Words of a reason belong into quotes"}},
		"with a comment behind it":                 {"/towpath approve prod <!-- really -->", []string{"wrong: approve takes one target, so what is <!--? Words of a reason belong into quotes"}},
		"with a quote that does not end":           {`/towpath reject prod --reason "errors`, []string{"wrong: its quote has no end"}},
		"with a reason that is none":               {`/towpath reject prod --reason`, []string{"wrong: --reason lacks the reason"}},
		"with two reasons":                         {`/towpath reject prod --reason a --reason b`, []string{"wrong: it gives two reasons"}},
		"with a reason where none is wanted":       {`/towpath plan --reason a`, []string{"wrong: plan takes no reason"}},
		"with a flag that there is not":            {`/towpath approve prod --force`, []string{`wrong: there is no --force; there is --reason "…"`}},
		"with more than it takes":                  {`/towpath help me`, []string{"wrong: help takes nothing more, so what is me?"}},
		"with a commit that is cut":                {`/towpath plan 0123456`, []string{"wrong: plan takes a commit with all its 40 letters: of shorter ones there may be others"}},
		"with a long reason":                       {`/towpath reject prod --reason "` + strings.Repeat("x", 1025) + `"`, []string{"wrong: its reason has more than 1024 letters"}},
		"with a name that is none":                 {`/towpath approve ` + strings.Repeat("x", 513), []string{"wrong: no target has a name as long as that"}},
		"in more text than GitHub takes":           {"/towpath status\n" + strings.Repeat("x", 1<<20), nil},
		"below what takes parsers long":            {strings.Repeat("[", 60000) + "\n/towpath status", []string{"status"}},
		"below what takes parsers long, and stars": {strings.Repeat("*a_ ", 15000) + "\n\n/towpath status", []string{"status"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, c := range status.Commands(c.body) {
				got = append(got, asked(c))
			}
			if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
				t.Errorf("asks for %q, want %q", got, c.want)
			}
		})
	}
}

func FuzzCommands(f *testing.F) {
	for _, body := range []string{"/towpath approve prod", "> a\n/towpath x", "```\n/towpath status\n```", "<!-- \n/towpath status -->", "/towpath reject a/b --reason \"“x\"", "a | b\n-|-\n/towpath status"} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		all := status.Commands(body)
		if len(all) > status.MaxCommands+1 {
			t.Errorf("%d commands", len(all))
		}
		for _, c := range all {
			if c.Wrong == "" && c.Verb == "" {
				t.Errorf("a command asks for nothing: %+v", c)
			}
		}
		var quoted strings.Builder
		for line := range strings.SplitSeq(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(body), "\n") {
			quoted.WriteString("> " + line + "\n")
		}
		if all := status.Commands(quoted.String()); len(all) > 0 {
			t.Errorf("of a quote of %q this is done: %+v", body, all)
		}
	})
}
