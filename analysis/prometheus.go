package analysis

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// NewPrometheus makes a provider of a Prometheus, or of what speaks its API (Thanos, Mimir, VictoriaMetrics). Queries are instant ones, at the window's end:
// how far they look back is theirs to say.
func NewPrometheus(s Server, a Auth) (*Provider, error) {
	at, err := below(s, "api/v1/query")
	if err != nil {
		return nil, err
	}
	return newProvider(s, &prometheus{at, a}, a.secrets()...)
}

type prometheus struct {
	at   string
	auth Auth
}

// https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries
func (p *prometheus) request(query string, w Window) (*http.Request, error) {
	values := url.Values{"query": {query}, "time": {strconv.FormatFloat(float64(w.End.UnixMilli())/1000, 'f', 3, 64)}}
	// A GET: agents' allow-lists take it without being told.
	request, err := http.NewRequest(http.MethodGet, p.at+"?"+values.Encode(), nil)
	if err == nil {
		p.auth.set(request)
	}
	return request, err
}

type prometheusAnswer struct {
	Status    string
	Error     string
	ErrorType string
	Warnings  []string
	Data      struct {
		ResultType string
		Result     json.RawMessage
	}
}

// sample is one of a vector. A native histogram has no value.
type sample struct {
	Metric map[string]string
	Value  *point
}

func (p *prometheus) complaint(answer []byte) string {
	var a prometheusAnswer
	if json.Unmarshal(answer, &a) != nil || a.Status != "error" {
		return ""
	}
	return a.Error
}

func (p *prometheus) measurement(answer []byte, show func(string) string) (Measurement, error) {
	var a prometheusAnswer
	if err := json.Unmarshal(answer, &a); err != nil || a.Status != "success" {
		return Measurement{}, refused("its answer is not that of Prometheus' API (%s); is its url right?", show(string(answer)))
	}
	var at point
	var err error
	switch a.Data.ResultType {
	case "scalar":
		err = json.Unmarshal(a.Data.Result, &at)
	case "vector":
		var all []sample
		if err = json.Unmarshal(a.Data.Result, &all); err == nil {
			at, err = one(all, show)
			if err != nil {
				return Measurement{}, err
			}
		}
	case "matrix":
		return Measurement{}, refused("the query gives a matrix: values over a range, where one value is needed; put a function like avg_over_time or rate around the range, and sum or avg around that")
	default:
		return Measurement{}, refused("the query gives a %.20q, where a vector of one series or a scalar is needed", a.Data.ResultType)
	}
	if err != nil {
		return Measurement{}, refused("its answer cannot be read: %s", show(err.Error()))
	}
	if math.IsNaN(at.value) || math.IsInf(at.value, 0) {
		return Measurement{}, noData("the query gives %v, as a division by zero does where there were no requests", at.value)
	}
	return Measurement{Value: at.value, At: at.at, Warnings: a.Warnings[:min(len(a.Warnings), mostWarned)]}, nil
}

// one is the value of a vector that must have one series.
func one(all []sample, show func(string) string) (point, error) {
	switch {
	case len(all) == 0:
		return point{}, noData("the query gives no series: nothing matches its labels, or nothing was measured within its range")
	case len(all) > 1:
		return point{}, refused("the query gives %d series, and must give one value; put sum or avg around it. The first are %s and %s", len(all), show(labels(all[0])), show(labels(all[1])))
	case all[0].Value == nil:
		return point{}, refused("the query gives a native histogram, where one value is needed; put histogram_quantile or histogram_avg around it")
	}
	return *all[0].Value, nil
}

func labels(s sample) string {
	text, err := json.Marshal(s.Metric)
	if err != nil {
		return "{}"
	}
	return string(text)
}

// point is [time in seconds, "value"].
type point struct {
	at    time.Time
	value float64
}

// UnmarshalJSON implements json.Unmarshaler.
func (p *point) UnmarshalJSON(text []byte) error {
	var pair []json.RawMessage
	var seconds float64
	var value string
	if json.Unmarshal(text, &pair) != nil || len(pair) != 2 || json.Unmarshal(pair[0], &seconds) != nil || json.Unmarshal(pair[1], &value) != nil {
		return fmt.Errorf("%q is no pair of a time and a value in quotes", text)
	}
	number, err := strconv.ParseFloat(value, 64) // also NaN, +Inf and -Inf, as Prometheus writes them
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return fmt.Errorf("%q is no number", value)
	}
	p.at, p.value = time.UnixMilli(int64(seconds*1000)).UTC(), number
	return nil
}
