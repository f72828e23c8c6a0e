package judge_test

import (
	"math"
	"strings"
	"testing"

	. "towpath/analysis/judge"
)

func limit(v float64) *float64 { return &v }

func runs(values ...float64) (all []Run) {
	for _, v := range values {
		all = append(all, Run{Value: v})
	}
	return all
}

func want(t *testing.T, got Verdict, result Result, says string) {
	t.Helper()
	if got.Result != result || !strings.Contains(got.Reason, says) {
		t.Errorf("got %s: %s\nwant %s: %s", got.Result, got.Reason, result, says)
	}
}

func TestAValueIsHeldAgainstItsLimits(t *testing.T) {
	t.Parallel()
	between := Limits{limit(-1), limit(2.5)}
	for name, c := range map[string]struct {
		run    Run
		limits Limits
		result Result
		says   string
	}{
		"between them":                   {Run{Value: 0.123456}, between, Passed, "the value is 0.1235, within the limits (lowerLimit -1, upperLimit 2.5)"},
		"on the upper one":               {Run{Value: 2.5}, between, Passed, "within the limits"},
		"on the lower one":               {Run{Value: -1}, between, Passed, "within the limits"},
		"above":                          {Run{Value: 3}, between, Failed, "the value is 3, above upperLimit 2.5"},
		"below":                          {Run{Value: -2}, between, Failed, "the value is -2, below lowerLimit -1"},
		"above by less than is shown":    {Run{Value: 2.5000001}, between, Failed, "the value is 2.5000001, above upperLimit 2.5"},
		"without a lower limit":          {Run{Value: -1e9}, Limits{Upper: limit(0)}, Passed, "(upperLimit 0)"},
		"without an upper limit":         {Run{Value: 1e9}, Limits{Lower: limit(0)}, Passed, "(lowerLimit 0)"},
		"a run without data":             {Run{NoData: true}, between, NoData, "the run has no data"},
		"what is no number":              {Run{Value: math.NaN()}, between, NoData, "the run has no data"},
		"what is infinite":               {Run{Value: math.Inf(1)}, between, NoData, "the run has no data"},
		"a value beside data that lacks": {Run{Value: 1, NoData: true}, between, NoData, "the run has no data"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want(t, Single(c.run, c.limits), c.result, c.says)
		})
	}
}

func TestTheMeanOfRunsIsHeldAgainstTheLimits(t *testing.T) {
	t.Parallel()
	none := Run{NoData: true}
	upper := Limits{Upper: limit(2)}
	for name, c := range map[string]struct {
		runs   []Run
		result Result
		says   string
	}{
		"one bad run among good ones":          {runs(1, 1, 3), Passed, "the mean of 3 runs is 1.667, within the limits (upperLimit 2)"},
		"a mean above":                         {runs(1, 4), Failed, "the mean of 2 runs is 2.5, above upperLimit 2"},
		"one run":                              {runs(1), Passed, "the mean of 1 run is 1"},
		"half of the runs without data":        {append(runs(1, 4), none, none), Failed, "the mean of 2 runs (2 more had no data) is 2.5, above"},
		"most of the runs without data":        {append(runs(9), none, none), NoData, "2 of 3 runs had no data"},
		"no run with data":                     {[]Run{none}, NoData, "1 of 1 run had no data"},
		"no run":                               {nil, NoData, "nothing was measured"},
		"values whose sum is no number":        {runs(math.MaxFloat64, math.MaxFloat64), Failed, "the mean of 2 runs is 1.798e+308, above"},
		"values that cancel out where extreme": {runs(math.MaxFloat64, -math.MaxFloat64), Passed, "is 0, within"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want(t, Mean(c.runs, upper), c.result, c.says)
		})
	}
}
