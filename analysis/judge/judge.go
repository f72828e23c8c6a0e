// Package judge says what measurements mean: whether values keep to their limits, and whether a canary does worse than the baseline that runs beside it.
// Pure: it gets numbers and gives a verdict, with its reason as a sentence for people. When to measure, and what a verdict brings about, others decide.
package judge

import (
	"fmt"
	"math"
	"strconv"
)

// Result is what a verdict comes to.
type Result string

// The results.
const (
	Passed Result = "passed"
	Failed Result = "failed"
	NoData Result = "noData" // there is nothing to judge, or too little of it: neither good nor bad
)

// Verdict is a result with its reason.
type Verdict struct {
	Result Result
	Reason string // without a full stop, to stand behind the query's name
}

// Limits bound a value; a value on a limit keeps to it. nil: no limit on that side.
type Limits struct {
	Lower, Upper *float64
}

// Run is one measurement of a query. A value that is no finite number counts as no data.
type Run struct {
	Value  float64
	NoData bool
}

// Single judges one run.
func Single(r Run, l Limits) Verdict {
	if !r.counts() {
		return Verdict{NoData, "the run has no data"}
	}
	return l.judge(r.Value, "the value")
}

// Mean judges the mean of runs. Runs without data count neither way, as long as they are not the greater part: then there is no verdict.
func Mean(runs []Run, l Limits) Verdict {
	values := counted(runs)
	if tooMany := missing(runs, values); tooMany != "" {
		return Verdict{NoData, tooMany}
	}
	what := fmt.Sprintf("the mean of %s", count(len(values), "run"))
	if without := len(runs) - len(values); without > 0 {
		what += fmt.Sprintf(" (%d more had no data)", without)
	}
	return l.judge(mean(values), what)
}

func (r Run) counts() bool { return !r.NoData && !math.IsNaN(r.Value) && !math.IsInf(r.Value, 0) }

// counted are the values of the runs that have one.
func counted(runs []Run) []float64 {
	var values []float64
	for _, r := range runs {
		if r.counts() {
			values = append(values, r.Value)
		}
	}
	return values
}

// missing says why too few of some runs have data; "": enough have.
func missing(runs []Run, values []float64) string {
	switch {
	case len(runs) == 0:
		return "nothing was measured"
	case len(values)*2 < len(runs) || len(values) == 0:
		return fmt.Sprintf("%d of %s had no data", len(runs)-len(values), count(len(runs), "run"))
	}
	return ""
}

// mean does not overflow on the way.
func mean(values []float64) float64 {
	var m float64
	for i, v := range values {
		m += v/float64(i+1) - m/float64(i+1)
	}
	return m
}

func (l Limits) judge(value float64, what string) Verdict {
	switch {
	case l.Upper != nil && value > *l.Upper:
		return Verdict{Failed, fmt.Sprintf("%s is %s, above upperLimit %s", what, beside(value, *l.Upper), exact(*l.Upper))}
	case l.Lower != nil && value < *l.Lower:
		return Verdict{Failed, fmt.Sprintf("%s is %s, below lowerLimit %s", what, beside(value, *l.Lower), exact(*l.Lower))}
	}
	return Verdict{Passed, fmt.Sprintf("%s is %s, within the limits (%s)", what, short(value), l)}
}

// String writes the limits as the deployment file does.
func (l Limits) String() string {
	switch {
	case l.Lower != nil && l.Upper != nil:
		return fmt.Sprintf("lowerLimit %s, upperLimit %s", exact(*l.Lower), exact(*l.Upper))
	case l.Upper != nil:
		return "upperLimit " + exact(*l.Upper)
	case l.Lower != nil:
		return "lowerLimit " + exact(*l.Lower)
	}
	return "none"
}

func exact(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

func short(v float64) string { return strconv.FormatFloat(v, 'g', 4, 64) }

// beside is short, unless a value would then look like the limit that it breaks.
func beside(v, limit float64) string {
	if text := short(v); text != short(limit) {
		return text
	}
	return exact(v)
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
