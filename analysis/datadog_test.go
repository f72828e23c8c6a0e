package analysis_test

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"testing"
	"time"

	"towpath/analysis"
)

// datadog stands in for https://docs.datadoghq.com/api/latest/metrics/#query-timeseries-points: GET /api/v1/query with from and to in seconds and a query,
// keys in DD-API-KEY and DD-APPLICATION-KEY; 200 with status and series, 400, 403 and 429 with a list of errors
// (https://docs.datadoghq.com/api/latest/rate-limits/: X-RateLimit-Reset is the time in seconds until the next one).
func datadog(t *testing.T, points map[string]string) string {
	form := regexp.MustCompile(`^(avg|sum|min|max|count):[\w.]+\{[^}]*\}`)
	calls := 0
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		refuse := func(code int, text string) {
			w.WriteHeader(code)
			fmt.Fprintf(w, `{"errors":[%q]}`, text)
		}
		w.Header().Set("Content-Type", "application/json")
		from, badFrom := strconv.ParseInt(r.FormValue("from"), 10, 64)
		to, badTo := strconv.ParseInt(r.FormValue("to"), 10, 64)
		query := r.FormValue("query")
		switch {
		case r.Method != http.MethodGet || r.URL.Path != "/api/v1/query":
			refuse(http.StatusNotFound, "Not found")
		case r.Header.Get("DD-API-KEY") != secrets[0] || r.Header.Get("DD-APPLICATION-KEY") != secrets[1]:
			refuse(http.StatusForbidden, "Forbidden")
		case badFrom != nil || badTo != nil || from >= to:
			refuse(http.StatusBadRequest, "The from and to timestamps are invalid")
		case !form.MatchString(query):
			refuse(http.StatusBadRequest, "Rule 'scope_expr' didn't match at '"+query+"'.")
		case query == "avg:often{*}":
			if calls++; calls > 1 {
				w.Header().Set("X-RateLimit-Reset", "42")
				refuse(http.StatusTooManyRequests, "Too many requests")
				return
			}
			fallthrough
		default:
			fmt.Fprintf(w, `{"status":"ok","res_type":"time_series","resp_version":1,"query":%q,"from_date":%d,"to_date":%d,"series":%s,"values":[],"times":[],"message":"","group_by":[]}`,
				query, from*1000, to*1000, points[query])
		}
	})
}

func TestDatadogIsAsked(t *testing.T) {
	t.Parallel()
	series := func(points string) string {
		return `[{"unit":null,"query_index":0,"aggr":"avg","metric":"errors","tag_set":[],"expression":"avg:errors{*}","scope":"*","interval":60,"length":2,"start":1,"end":2,"pointlist":` + points + `,"display_name":"errors"}]`
	}
	url := datadog(t, map[string]string{
		"avg:errors{*}.rollup(avg, 60)": series(`[[1772366340000.0,0.5],[1772366400000.0,0.25]]`),
		"avg:late{*}":                   series(`[[1772366340000.0,0.5],[1772366400000.0,null]]`),
		"avg:gaps{*}":                   series(`[[1772366340000.0,null]]`),
		"avg:empty{*}":                  series(`[]`),
		"avg:nothing{*}":                `[]`,
		"avg:errors{*} by {pod}":        `[{"scope":"pod:a","pointlist":[[1,1]]},{"scope":"pod:b","pointlist":[[1,1]]}]`,
		"avg:odd{*}":                    `[{"scope":"*","pointlist":[[1,2,3]]}]`,
		"avg:text{*}":                   `[{"scope":"*","pointlist":[[1,"2"]]}]`,
		"avg:often{*}":                  series(`[[1772366340000.0,0.5]]`),
	})
	p := made(t)(analysis.NewDatadog(at(url), secrets[0], secrets[1]))
	m := value(t, p, "avg:errors{*}.rollup(avg, 60)", window, 0.25)
	if !m.At.Equal(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)) {
		t.Errorf("measured at %s", m.At)
	}
	value(t, p, "avg:late{*}", window, 0.5)
	fails[*analysis.NoData](t, p, "avg:gaps{*}", "a series without a point within its window")
	fails[*analysis.NoData](t, p, "avg:empty{*}", "a series without a point within its window")
	fails[*analysis.NoData](t, p, "avg:nothing{*}", "the query gives no series")
	fails[*analysis.Refused](t, p, "avg:errors{*} by {pod}", `the query gives 2 series, and must give one value; take out what groups it. The first are of "pod:a" and "pod:b"`)
	fails[*analysis.Refused](t, p, "avg:odd{*}", "a point is a time and a value")
	fails[*analysis.Refused](t, p, "avg:text{*}", "its answer cannot be read")
	fails[*analysis.Refused](t, p, "errors", "it answers 400 Bad Request: Rule 'scope_expr' didn't match at 'errors'.")

	value(t, p, "avg:often{*}", window, 0.5)
	m, err := p.Measure(t.Context(), "avg:often{*}", window)
	if away := failed[*analysis.Unavailable](t, m, err, "it answers 429 Too Many Requests: Too many requests"); away.After != 42*time.Second {
		t.Errorf("it wants to be left alone for %s", away.After)
	}
	stranger := made(t)(analysis.NewDatadog(at(url), secrets[1], secrets[0]))
	fails[*analysis.Refused](t, stranger, "avg:errors{*}", "it answers 403 Forbidden: Forbidden; check the provider's credentials")
	broken := made(t)(analysis.NewDatadog(at(answers(t, 200, `{"status":"error","error":"error parsing query"}`)), secrets[0], secrets[1]))
	fails[*analysis.Refused](t, broken, "avg:errors{*}", "cannot answer this query: error parsing query")
}
