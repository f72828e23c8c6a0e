package analysis

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// NewRelic and NewRelicEU are the addresses of NerdGraph, by where an account's data are kept.
const (
	NewRelic   = "https://api.newrelic.com/graphql"
	NewRelicEU = "https://api.eu.newrelic.com/graphql"
)

// NewNewRelic makes a provider of New Relic. Queries are NRQL and say their time themselves (SINCE … UNTIL …).
func NewNewRelic(s Server, userKey string, account int64) (*Provider, error) {
	if account <= 0 {
		return nil, errors.New("metric provider " + s.Name + ": the account id is a number above 0")
	}
	return newProvider(s, &newRelic{s.URL, userKey, account}, userKey)
}

type newRelic struct {
	url     string
	userKey string
	account int64
}

// https://docs.newrelic.com/docs/apis/nerdgraph/examples/nerdgraph-nrql-tutorial/; without a timeout NerdGraph gives up after 5 seconds.
const nerdGraph = `query($account: Int!, $nrql: Nrql!) { actor { account(id: $account) { nrql(query: $nrql, timeout: 25) { results } } } }`

func (n *newRelic) request(query string, _ Window) (*http.Request, error) {
	body, err := json.Marshal(map[string]any{"query": nerdGraph, "variables": map[string]any{"account": n.account, "nrql": query}})
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequest(http.MethodPost, n.url, bytes.NewReader(body))
	if err == nil {
		request.Header.Set("Content-Type", contentType)
		request.Header.Set("API-Key", n.userKey)
	}
	return request, err
}

type newRelicAnswer struct {
	Data struct {
		Actor struct {
			Account *struct {
				NRQL *struct {
					Results []map[string]any
				}
			}
		}
	}
	Errors []newRelicError
}

type newRelicError struct {
	Message    string
	Extensions struct {
		ErrorClass string
		ErrorCode  string `json:"error_code"`
	}
}

func (n *newRelic) complaint(answer []byte) string {
	var a newRelicAnswer
	if json.Unmarshal(answer, &a) != nil {
		return ""
	}
	var all []string
	for _, e := range a.Errors {
		all = append(all, e.Message)
	}
	return strings.Join(all, "; ")
}

// measurement also judges errors, which GraphQL sends with the status 200.
func (n *newRelic) measurement(answer []byte, show func(string) string) (Measurement, error) {
	var a newRelicAnswer
	if err := json.Unmarshal(answer, &a); err != nil {
		return Measurement{}, refused("its answer cannot be read: %s", show(err.Error()))
	}
	says := show(n.complaint(answer))
	for _, e := range a.Errors {
		switch e.Extensions.ErrorClass {
		case "TIMEOUT", "SERVER_ERROR", "INTERNAL_SERVER_ERROR", "TOO_MANY_REQUESTS":
			return Measurement{}, &Unavailable{Reason: says}
		}
		if e.Extensions.ErrorCode == "BAD_API_KEY" {
			return Measurement{}, refused("%s; check the provider's user key", says)
		}
	}
	account := a.Data.Actor.Account
	switch {
	case len(a.Errors) > 0:
		return Measurement{}, refused("%s", says)
	case account == nil || account.NRQL == nil:
		return Measurement{}, refused("its answer is not that of NerdGraph (%s); are its url and account id right?", show(string(answer)))
	}
	return single(account.NRQL.Results, show)
}

// single is the value of results that must be one row with one number: {"average.duration": 0.2}, or, of a percentile, {"percentile.duration": {"95": 0.2}}.
func single(rows []map[string]any, show func(string) string) (Measurement, error) {
	if len(rows) == 0 {
		return Measurement{}, noData("the query gives no row: there are no events that match it")
	}
	row := rows[0]
	for _, clause := range []struct{ mark, name string }{{"facet", "FACET"}, {"beginTimeSeconds", "TIMESERIES"}, {"comparison", "COMPARE WITH"}} {
		if _, found := row[clause.mark]; found {
			return Measurement{}, refused("the query gives a row for each part of %s, and must give one value; take %s out", clause.name, clause.name)
		}
	}
	if len(rows) > 1 {
		return Measurement{}, refused("the query gives %d rows, and must give one value; put a function like average or count around what it selects", len(rows))
	}
	if inner, nested := only(row).(map[string]any); nested {
		row = inner
	}
	switch value := only(row).(type) {
	case float64:
		return Measurement{Value: value}, nil
	case nil:
		if len(row) == 1 {
			return Measurement{}, noData("the query gives null, as functions do of no events")
		}
	}
	return Measurement{}, refused("the query gives %s, and must give one number", show(strings.Join(slices.Sorted(maps.Keys(row)), ", ")))
}

// only is the value of a row that has one; nil when it has several, or null.
func only(row map[string]any) any {
	if len(row) != 1 {
		return nil
	}
	for _, value := range row {
		return value
	}
	return nil
}
