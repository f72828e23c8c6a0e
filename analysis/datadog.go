package analysis

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Datadog is the site where most organizations are; others have the address of their own as Server.URL, https://api.datadoghq.eu for instance.
const Datadog = "https://api.datadoghq.com"

// NewDatadog makes a provider of Datadog. A query's one value is its last point within the window: a query whose rollup is as long as the window has one or
// two there, as buckets begin at whole multiples of their length.
func NewDatadog(s Server, apiKey, applicationKey string) (*Provider, error) {
	at, err := below(s, "api/v1/query")
	if err != nil {
		return nil, err
	}
	return newProvider(s, &datadog{at, apiKey, applicationKey}, apiKey, applicationKey)
}

type datadog struct {
	at                     string
	apiKey, applicationKey string
}

// https://docs.datadoghq.com/api/latest/metrics/#query-timeseries-points: from and to are in seconds and required.
func (d *datadog) request(query string, w Window) (*http.Request, error) {
	values := url.Values{"query": {query}, "from": {strconv.FormatInt(w.Start.Unix(), 10)}, "to": {strconv.FormatInt(w.End.Unix(), 10)}}
	request, err := http.NewRequest(http.MethodGet, d.at+"?"+values.Encode(), nil)
	if err == nil {
		request.Header.Set("DD-API-KEY", d.apiKey)
		request.Header.Set("DD-APPLICATION-KEY", d.applicationKey)
	}
	return request, err
}

// datadogAnswer is status "ok" with series, status "error" with a text, or, where the status of HTTP is not 200, a list of errors alone.
type datadogAnswer struct {
	Status string
	Error  string
	Errors []string
	Series []struct {
		Scope     string
		Pointlist [][]*float64 // [milliseconds, value], the value null where there is none
	}
}

func (d *datadog) complaint(answer []byte) string {
	var a datadogAnswer
	if json.Unmarshal(answer, &a) != nil {
		return ""
	}
	return strings.Join(a.Errors, "; ")
}

func (d *datadog) measurement(answer []byte, show func(string) string) (Measurement, error) {
	var a datadogAnswer
	switch err := json.Unmarshal(answer, &a); {
	case err != nil:
		return Measurement{}, refused("its answer cannot be read: %s", show(err.Error()))
	case a.Status == "error":
		return Measurement{}, refused("%s", show(a.Error))
	case a.Status != "ok":
		return Measurement{}, refused("its answer is not that of Datadog's API (%s); is its url right?", show(string(answer)))
	case len(a.Series) == 0:
		return Measurement{}, noData("the query gives no series: nothing matches its tags, or nothing was measured within its window")
	case len(a.Series) > 1:
		return Measurement{}, refused("the query gives %d series, and must give one value; take out what groups it. The first are of %q and %q",
			len(a.Series), show(a.Series[0].Scope), show(a.Series[1].Scope))
	}
	var m *Measurement
	for _, p := range a.Series[0].Pointlist {
		if len(p) != 2 || p[0] == nil {
			return Measurement{}, refused("its answer cannot be read: a point is a time and a value")
		}
		if p[1] != nil {
			m = &Measurement{Value: *p[1], At: time.UnixMilli(int64(*p[0])).UTC()}
		}
	}
	if m == nil {
		return Measurement{}, noData("the query gives a series without a point within its window")
	}
	return *m, nil
}
