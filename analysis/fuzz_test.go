package analysis_test

import (
	"errors"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"

	"towpath/analysis"
)

// canned is a transport that answers with one text.
type canned string

func (c canned) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(string(c))), Request: r}, nil
}

// Whatever is answered is a finite number, or an error that is one of ours and short.
func FuzzAnswers(f *testing.F) {
	for _, text := range []string{
		`{"status":"success","data":{"resultType":"vector","result":[{"metric":{"a":"b"},"value":[1.5,"7"]}]}}`,
		`{"status":"success","data":{"resultType":"scalar","result":[1e300,"NaN"]}}`,
		`{"status":"ok","series":[{"scope":"*","pointlist":[[1,2],[3,null]]}]}`,
		`{"data":{"actor":{"account":{"nrql":{"results":[{"percentile.duration":{"95":0.75}}]}}}},"errors":[{"message":"x","extensions":{"errorClass":"TIMEOUT"}}]}`,
		`{"data":{"value":0.25}}`, `[]`, `null`, `"x"`, `7`,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s := at("http://metrics.test")
		s.Transport = canned(text)
		for kind, p := range every(t, s) {
			m, err := p.Measure(t.Context(), "q", window)
			var none *analysis.NoData
			var no *analysis.Refused
			var away *analysis.Unavailable
			switch {
			case err == nil && (math.IsNaN(m.Value) || math.IsInf(m.Value, 0)):
				t.Errorf("%s: %v is no measurement", kind, m.Value)
			case err != nil && !errors.As(err, &none) && !errors.As(err, &no) && !errors.As(err, &away):
				t.Errorf("%s: %T is none of ours: %v", kind, err, err)
			case err != nil && len(err.Error()) > 1200:
				t.Errorf("%s: an error of %d bytes: %.300v", kind, len(err.Error()), err)
			}
		}
	})
}
