package analysis_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"towpath/analysis"
)

// nerdGraph stands in for https://docs.newrelic.com/docs/apis/nerdgraph/examples/nerdgraph-nrql-tutorial/: a POST of {query, variables} with the user key as
// API-Key; results as {"data":{"actor":{"account":{"nrql":{"results":[…]}}}}}, errors in a list beside data, with the status 200 too, and what they are in
// extensions (https://github.com/newrelic/newrelic-client-go, internal/http/graphql.go: errorClass, error_code).
func nerdGraph(t *testing.T, results map[string]string) string {
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json;charset=utf-8")
		refuse := func(text, extensions string) {
			fmt.Fprintf(w, `{"data":{"actor":{"account":{"nrql":null}}},"errors":[{"message":%q,"path":["actor","account","nrql"],"extensions":%s}]}`, text, extensions)
		}
		var asked struct {
			Query     string
			Variables struct {
				Account int64
				NRQL    string
			}
		}
		switch err := json.NewDecoder(r.Body).Decode(&asked); {
		case r.Method != http.MethodPost || r.URL.Path != "/graphql" || err != nil || r.Header.Get("Content-Type") != "application/json":
			http.Error(w, "Bad Request", http.StatusBadRequest)
		case r.Header.Get("API-Key") == "":
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"errors":[{"message":"Api-Key is required"}]}`)
		case r.Header.Get("API-Key") != secrets[0]:
			refuse("Invalid user key", `{"error_code":"BAD_API_KEY"}`)
		case !strings.Contains(asked.Query, "$account: Int!, $nrql: Nrql!") || !strings.Contains(asked.Query, "results"):
			refuse("Argument is invalid", `{"code":"BAD_USER_INPUT"}`)
		case asked.Variables.Account != 12345:
			fmt.Fprint(w, `{"data":{"actor":{"account":null}}}`)
		case asked.Variables.NRQL == "slow":
			refuse("Query timed out", `{"errorClass":"TIMEOUT"}`)
		case !strings.HasPrefix(asked.Variables.NRQL, "SELECT "):
			refuse("NRQL Syntax Error: Error at line 1 position 1", `{"errorClass":"NRDB:1102"}`)
		default:
			fmt.Fprintf(w, `{"data":{"actor":{"account":{"nrql":{"results":%s}}}}}`, results[asked.Variables.NRQL])
		}
	})
}

func TestNewRelicIsAsked(t *testing.T) {
	t.Parallel()
	url := nerdGraph(t, map[string]string{
		`SELECT average(duration) FROM Transaction WHERE app = "shop"`: `[{"average.duration":0.25}]`,
		"SELECT count(*)":                     `[{"count":0}]`,
		"SELECT percentile(duration, 95)":     `[{"percentile.duration":{"95":0.75}}]`,
		"SELECT percentile(duration, 95, 99)": `[{"percentile.duration":{"95":0.75,"99":1}}]`,
		"SELECT average(nothing)":             `[{"average.nothing":null}]`,
		"SELECT percentile(nothing, 95)":      `[{"percentile.nothing":{"95":null}}]`,
		"SELECT duration":                     `[{"duration":1,"timestamp":1772366400000},{"duration":2,"timestamp":1772366400001}]`,
		"SELECT latest(appName)":              `[{"latest.appName":"shop"}]`,
		"SELECT average(a), average(b)":       `[{"average.a":1,"average.b":2}]`,
		"SELECT count(*) FACET pod":           `[{"facet":"a","pod":"a","count":1},{"facet":"b","pod":"b","count":2}]`,
		"SELECT count(*) TIMESERIES":          `[{"beginTimeSeconds":1,"endTimeSeconds":2,"count":1},{"beginTimeSeconds":2,"endTimeSeconds":3,"count":1}]`,
		"SELECT count(*) COMPARE WITH 1 day":  `[{"comparison":"current","count":1},{"comparison":"previous","count":1}]`,
		"SELECT nothing":                      `[]`,
		"SELECT odd":                          `[5]`,
	})
	p := made(t)(analysis.NewNewRelic(at(url+"/graphql"), secrets[0], 12345))
	value(t, p, `SELECT average(duration) FROM Transaction WHERE app = "shop"`, window, 0.25)
	value(t, p, "SELECT count(*)", window, 0)
	value(t, p, "SELECT percentile(duration, 95)", window, 0.75)
	for query, says := range map[string]string{
		"SELECT average(nothing)":        "the query gives null",
		"SELECT percentile(nothing, 95)": "the query gives null",
		"SELECT nothing":                 "the query gives no row",
	} {
		fails[*analysis.NoData](t, p, query, says)
	}
	for query, says := range map[string]string{
		"SELECT percentile(duration, 95, 99)": "the query gives 95, 99, and must give one number",
		"SELECT duration":                     "the query gives 2 rows, and must give one value",
		"SELECT latest(appName)":              "the query gives latest.appName, and must give one number",
		"SELECT average(a), average(b)":       "the query gives average.a, average.b, and must give one number",
		"SELECT count(*) FACET pod":           "take FACET out",
		"SELECT count(*) TIMESERIES":          "take TIMESERIES out",
		"SELECT count(*) COMPARE WITH 1 day":  "take COMPARE WITH out",
		"SELECT odd":                          "its answer cannot be read",
		"FROM":                                "NRQL Syntax Error: Error at line 1 position 1",
	} {
		fails[*analysis.Refused](t, p, query, says)
	}
	fails[*analysis.Unavailable](t, p, "slow", "is not available: Query timed out")

	stranger := made(t)(analysis.NewNewRelic(at(url+"/graphql"), secrets[1], 12345))
	fails[*analysis.Refused](t, stranger, "SELECT count(*)", "Invalid user key; check the provider's user key")
	nobody := made(t)(analysis.NewNewRelic(at(url+"/graphql"), "", 12345))
	fails[*analysis.Refused](t, nobody, "SELECT count(*)", "it answers 401 Unauthorized: Api-Key is required; check the provider's credentials")
	elsewhere := made(t)(analysis.NewNewRelic(at(url+"/graphql"), secrets[0], 1))
	fails[*analysis.Refused](t, elsewhere, "SELECT count(*)", "are its url and account id right?")
}
