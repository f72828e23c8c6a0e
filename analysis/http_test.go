package analysis_test

import (
	"io"
	"net/http"
	"testing"

	"towpath/analysis"
)

func TestAServerThatAnswersWithJSONIsAsked(t *testing.T) {
	t.Parallel()
	seen := make(chan string, 1)
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		seen <- r.Method + " " + r.URL.String() + " " + r.Header.Get("Authorization") + " " + r.Header.Get("Content-Type") + " " + string(body)
		w.Header().Set("Content-Type", "application/vnd.api+json")
		_, _ = w.Write([]byte(`{"data":{"value":0.25},"rows":[{"n":1},{"n":2}]}`))
	})
	sent := func(want string) {
		t.Helper()
		if got := <-seen; got != want {
			t.Errorf("it was sent\n%s\nwant\n%s", got, want)
		}
	}
	p := made(t)(analysis.NewHTTP(at(url+"/of/{{query}}?from={{start}}&to={{ end }}"), analysis.Auth{Token: secrets[0]}, "", "$.data.value"))
	value(t, p, `errors of "a/b" & c`, window, 0.25)
	sent(`GET /of/errors%20of%20%22a%2Fb%22%20%26%20c?from=1772366370&to=1772366430 Bearer ` + secrets[0] + "  ")

	p = made(t)(analysis.NewHTTP(at(url), analysis.Auth{}, `{"sql": "{{query}}", "until": {{end}}}`, "$.rows[-1].n"))
	value(t, p, "SELECT \"n\"\nFROM t", window, 2)
	sent(`POST /  application/json {"sql": "SELECT \"n\"\nFROM t", "until": 1772366430}`)

	p = made(t)(analysis.NewHTTP(at(url+"?{{query}}"), analysis.Auth{}, "", "$.rows[*].n"))
	fails[*analysis.Refused](t, p, "q", "there are 2 values at $[\"rows\"][*][\"n\"] in its answer, and must be one")
	sent("GET /?q   ")
}

func TestWhereTheNumberShouldBe(t *testing.T) {
	t.Parallel()
	asked := func(text string) *analysis.Provider {
		return made(t)(analysis.NewHTTP(at(answers(t, 200, text)+"?{{query}}"), analysis.Auth{}, "", "$.data.value"))
	}
	value(t, asked(`{"data":{"value":-1e-3}}`), "q", window, -0.001)
	fails[*analysis.NoData](t, asked(`{"data":{"value":null}}`), "q", `there is null at $["data"]["value"] in its answer`)
	fails[*analysis.NoData](t, asked(`{"data":[]}`), "q", `there is nothing at $["data"]["value"] in its answer: {"data":[]}`)
	for text, says := range map[string]string{
		`{"data":{"value":"0.25"}}`:    `there is no number at $["data"]["value"] in its answer, but "0.25"`,
		`{"data":{"value":true}}`:      "but true",
		`{"data":{"value":{"x":[1]}}}`: `but {"x":[1]}`,
	} {
		fails[*analysis.Refused](t, asked(text), "q", says)
	}
}
