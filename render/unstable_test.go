package render_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"towpath/render"
)

// secret is a template of a Secret r with a value.
func secret(value string) string {
	return "apiVersion: v1\nkind: Secret\nmetadata: {name: r}\nstringData: {p: \"x" + value + "\"}\n"
}

func TestWhateverMakesAChartComeOutDifferentlyIsFound(t *testing.T) {
	t.Parallel()
	pool := newPool(t, render.Limits{})
	const r = "web/templates/r.yaml "
	many := "" // so many keys hardly ever come in the same order twice
	for i := range 5000 {
		many += fmt.Sprintf("k%d: v%d\n", i, i)
	}
	for name, c := range map[string]struct {
		template string
		files    files
		want     string // "": nothing is wrong
	}{
		"a random value after the end of something in a helper": {`{{ include "p" . }}`, files{"_p.tpl": `{{ define "p" }}{{ if .Values.value }}a{{ end }}{{ randAlphaNum 12 }}{{ end }}`},
			r + "uses randAlphaNum, whose result is another one at each render (seen at Secret r)"},
		"a random value two helpers away":      {`{{ template "a" . }}`, files{"_a.tpl": `{{ define "a" }}{{ include "b" . }}{{ end }}`, "_b.tpl": `{{ define "b" }}{{ with . }}{{ else }}{{ end }}{{ uuidv4 }}{{ end }}`}, r + "uses uuidv4"},
		"a certificate":                        {`{{ (genCA "a" 1).Cert | b64enc }}`, nil, r + "uses genCA"},
		"the year":                             {`{{ now | date "2006" }}`, nil, r + "uses now, whose result is another one at each render (for Secret r)"},
		"an age":                               {`{{ ago (toDate "2006" "2007") | trunc 1 }}`, nil, r + "uses ago"},
		"a variable that holds it":             {`{{ $x := dict "a" (list (now | date "2006")) }}{{ $x.a }}`, nil, r + "uses now"},
		"an object of the cluster":             {`{{ len (lookup "v1" "Secret" "a" "b") }}`, nil, r + "uses lookup, which finds nothing here: no cluster is asked while rendering (for Secret r)"},
		"an address":                           {`{{ getHostByName "example.com" }}`, nil, r + "uses getHostByName, which finds nothing here"},
		"a text of the values":                 {`{{ tpl .Values.text . }}`, files{"../values.yaml": "text: '{{ now | date \"2006\" }}'\n"}, r + "uses now"},
		"a random text of the values":          {`{{ tpl .Values.text . }}`, files{"../values.yaml": "text: '{{ randAlphaNum 12 }}'\n"}, r + "comes out differently at each render (seen at Secret r)"},
		"a file of the chart":                  {`{{ tpl (.Files.Get "day.txt") . }}`, files{"../day.txt": `{{ now | date "2006" }}`}, r + "uses now"},
		"a helper whose name is computed":      {`{{ include (printf "%s.day" .Chart.Name) . }}`, files{"_p.tpl": `{{ define "web.day" }}{{ now | date "2006" }}{{ end }}`}, r + "uses now"},
		"a template by its computed name":      {`{{ include (print $.Template.BasePath "/day.yaml") . | sha256sum }}`, files{"day.yaml": `# {{ now | date "2006" }}`}, r + "uses now"},
		"a helper whose name comes by a pipe":  {`{{ include .Values.which . }}`, files{"../values.yaml": "which: day\n", "_p.tpl": `{{ define "day" }}{{ now | date "2006" }}{{ end }}`}, r + "uses now"},
		"a random helper of a computed name":   {`{{ include (print "p" 1) . }}`, files{"_p.tpl": `{{ define "p1" }}{{ randAlphaNum 12 }}{{ end }}`}, r + "comes out differently at each render (seen at Secret r)"},
		"a random name":                        {`" }` + "\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: \"n-{{ randNumeric 12 }}", nil, r + "uses randNumeric, whose result is another one at each render (seen at Secret n-"},
		"values of such names":                 {`{{ .Values.now }}{{ $.Values.lookup }}{{ .Values.uuidv4 | quote | trunc 1 }}`, nil, ""},
		"a comment, a text and what is beside": {`{{/* now */}}{{ "randAlphaNum" }} now lookup`, nil, ""},
		"a helper that nobody includes":        {`{{ include (printf "%s.name" .Chart.Name) . }}`, files{"_p.tpl": `{{ define "web.name" }}n{{ end }}{{ define "web.day" }}{{ now }}{{ end }}{{ define "random.name" }}{{ randAlphaNum 12 }}{{ end }}`}, ""},
		"a random library beside":              {`{{ include .Values.which . }}`, files{"../values.yaml": "which: name\n", "_p.tpl": `{{ define "name" }}n{{ end }}{{ define "password" }}{{ randAlphaNum 12 }}{{ end }}`}, ""},
		"a template that makes no object":      {``, files{"none.yaml": `# {{ now }}`}, ""},
		"a test":                               {``, files{"test.yaml": "apiVersion: v1\nkind: Pod\nmetadata: {name: t, annotations: {helm.sh/hook: test}}\nspec: {at: \"{{ now }}\"}\n"}, ""},
		"a text that looks like one":           {`{{ "{{ now }}" | len }}`, nil, ""},
		"a page about templates, and tpl":      {`{{ tpl "x" . }}`, files{"../README.md": "write {{ now }}\n"}, ""},
		"the order of a map's keys":            {`{{ keys .Values | join "" | sha256sum }}`, files{"../values.yaml": many}, r + "comes out differently at each render (seen at Secret r)"},
		"the order of a map's values":          {`{{ include "p" . }}`, files{"../values.yaml": many, "_p.tpl": `{{ define "p" }}{{ values .Values | join "" | sha256sum }}{{ end }}`}, r + "comes out differently at each render (seen at Secret r)"},
		"keys that are sorted":                 {`{{ keys .Values | sortAlpha | join "" | sha256sum }}`, files{"../values.yaml": many}, ""},
		"the same name in two namespaces":      {"\" }\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: r, namespace: other}\nstringData: {p: \"y", nil, "there twice"},
	} {
		t.Run(name, func(t *testing.T) {
			f := chart.with(files{"app/chart/templates/r.yaml": secret(c.template)})
			for name, text := range c.files {
				f["app/chart/templates/"+name] = text
				if inner, beside := strings.CutPrefix(name, "../"); beside {
					delete(f, "app/chart/templates/"+name)
					f["app/chart/"+inner] = text
				}
			}
			for _, time := range []string{"the first time", "again"} {
				got := said(run(t, pool, f, "helm: {path: chart}"))
				if c.want == "" && got != "" || !strings.Contains(got, c.want) || strings.Contains(c.want, "twice") && strings.Contains(got, "render") {
					t.Errorf("%s: %s\nwant %s", time, got, c.want)
				}
			}
		})
	}
}

func TestWhatDependsOnTheTimeIsKeptThoughTwoRendersAreTheSame(t *testing.T) {
	t.Parallel()
	kept := &book{}
	pool := render.NewPool(render.Config{Program: []string{os.Args[0], "render-worker"}, Workers: 1, Firsts: kept})
	t.Cleanup(func() { pool.Close() })
	f := chart.with(files{"app/chart/templates/r.yaml": secret(`{{ now | date "2006" }}`)})
	for range 2 {
		r := run(t, pool, f, "{helm: {path: chart}, allowUnstable: true}")
		if r.Failed() || !strings.Contains(said(r), "uses now") || len(kept.kept) != 1 {
			t.Errorf("%d first results are kept; %s", len(kept.kept), said(r))
		}
	}
}
