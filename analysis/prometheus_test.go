package analysis_test

import (
	"strings"
	"testing"

	"towpath/analysis"
	"towpath/internal/testkit/prometheus"
)

func TestARealPrometheusIsAsked(t *testing.T) {
	t.Parallel()
	server := prometheus.Start(t)
	p := made(t)(analysis.NewPrometheus(at(server.URL+"/"), analysis.Auth{Username: prometheus.User, Password: prometheus.Password}))
	server.Set(`errors{pod="a"}`, 0.25)
	server.Set(`errors{pod="b"}`, 0.75)
	server.Set("requests", 0)
	server.Await("count(errors) + on() requests", 2)
	then := server.Await(`errors{pod="a"}`, 0.25)
	now := analysis.Window{Start: then, End: then}

	m := value(t, p, `errors{pod="a"}`, now, 0.25)
	if m.At.UnixMilli() != then.UnixMilli() {
		t.Errorf("measured at %s, asked at %s", m.At, then)
	}
	value(t, p, "avg(errors)", now, 0.5)
	value(t, p, "scalar(sum(errors)) * 1e3", now, 1000)
	value(t, p, "-1", now, -1)

	for query, says := range map[string]string{
		"errors / on() group_left() requests": "must give one value",
		"errors":                              `the query gives 2 series, and must give one value; put sum or avg around it. The first are {"__name__":"errors"`,
		"errors[1m]":                          "the query gives a matrix",
		`"text"`:                              `the query gives a "string", where a vector of one series or a scalar is needed`,
		"avg(":                                "it answers 400 Bad Request: invalid parameter \"query\"",
		"errors * on() errors":                "it answers 422 Unprocessable Entity: found duplicate series for the match group",
		strings.Repeat("(", 100_000):          "it answers 400 Bad Request",
	} {
		m, err := p.Measure(t.Context(), query, now)
		failed[*analysis.Refused](t, m, err, says)
	}
	for query, says := range map[string]string{
		"nothing":                       "has no data: the query gives no series",
		"sum(nothing)":                  "has no data: the query gives no series",
		"sum(requests) / sum(requests)": "has no data: the query gives NaN",
		"1 / 0":                         "has no data: the query gives +Inf",
		"-1 / 0":                        "has no data: the query gives -Inf",
	} {
		m, err := p.Measure(t.Context(), query, now)
		failed[*analysis.NoData](t, m, err, says)
	}

	stranger := made(t)(analysis.NewPrometheus(at(server.URL), analysis.Auth{Username: prometheus.User, Password: secrets[0]}))
	fails[*analysis.Refused](t, stranger, "errors", `it answers 401 Unauthorized: "Unauthorized"; check the provider's credentials`)
	lost := made(t)(analysis.NewPrometheus(at(server.URL+"/prefix"), analysis.Auth{Username: prometheus.User, Password: prometheus.Password}))
	fails[*analysis.Refused](t, lost, "errors", "it answers 404 Not Found", "check the provider's url")

	// The past does not change: what was asked at a time gives the same later.
	server.Set(`errors{pod="a"}`, 8)
	server.Await(`errors{pod="a"}`, 8)
	value(t, p, `errors{pod="a"}`, now, 0.25)
}

// What a Prometheus of today does not say, or not when asked by a test.
func TestWhatElseSpeaksPrometheusAPI(t *testing.T) {
	t.Parallel()
	asked := func(text string) *analysis.Provider {
		return made(t)(analysis.NewPrometheus(at(answers(t, 200, text)), analysis.Auth{}))
	}
	m := value(t, asked(`{"status":"success","warnings":["store \n gateway is away","2","3","4"],"data":{"resultType":"vector","result":[{"metric":{},"value":[1.5,"7"]}]}}`), "x", window, 7)
	if strings.Join(m.Warnings, "; ") != "store gateway is away; 2; 3" {
		t.Errorf("warnings are %q", m.Warnings)
	}
	for text, says := range map[string]string{
		`{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"histogram":[1.5,{"count":"1"}]}]}}`: "a native histogram",
		`{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1.5,"seven"]}]}}`:           `"seven" is no number`,
		`{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1.5,7]}]}}`:                 "is no pair of a time and a value in quotes",
		`{"status":"success","data":{"resultType":"scalar","result":[1.5,"7","8"]}}`:                                   "is no pair of a time and a value in quotes",
		`{"status":"success","data":{"resultType":"vector","result":{}}}`:                                              "its answer cannot be read",
		`{"status":"error","errorType":"internal","error":"x"}`:                                                        "its answer is not that of Prometheus' API",
	} {
		fails[*analysis.Refused](t, asked(text), "x", says)
	}
	fails[*analysis.NoData](t, asked(`{"status":"success","data":{"resultType":"scalar","result":[1.5,"1e999"]}}`), "x", "the query gives +Inf")
	steering := made(t)(analysis.NewPrometheus(at(answers(t, 400, `{"status":"error","errorType":"bad_data","error":"\u001b[31mred\u202e"}`)), analysis.Auth{}))
	fails[*analysis.Refused](t, steering, "x", "it answers 400 Bad Request: �[31mred�")
	busy := made(t)(analysis.NewPrometheus(at(answers(t, 503, `{"status":"error","errorType":"timeout","error":"query timed out in expression evaluation"}`)), analysis.Auth{}))
	fails[*analysis.Unavailable](t, busy, "x", "it answers 503 Service Unavailable: query timed out in expression evaluation")
}
