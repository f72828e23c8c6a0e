package judge

import (
	"fmt"
	"math"
	"slices"
)

const (
	// Chance is how often at most, in each direction that is worse, runs of two equal versions would look as different as a failed comparison's do.
	Chance = 0.01
	// LeastShift is the smallest shift that fails, as a share of the larger of the two medians.
	LeastShift = 0.1
)

// Comparison is the verdict on a canary's runs beside those of a baseline that served the same traffic at the same time, and what it rests on.
type Comparison struct {
	Verdict
	// Canary and Baseline are the medians of the runs that had data.
	Canary, Baseline float64
	// Shift is how far the canary's values lie above the baseline's, in the query's unit (Hodges and Lehmann's estimate: the median of all differences of a
	// run here and a run there); negative: below. Share is the same in relation to the larger median, from -1 to 1.
	Shift, Share float64
	// Higher is the share of all pairs of a run here and a run there in which the canary's value is the higher, ties counted half: 0.5 when there is no
	// difference. Cliff's delta is 2·Higher − 1.
	Higher float64
	// Chance is how often two equal versions would differ so much in the direction in which the canary differs.
	Chance float64
}

// Compare fails a canary that does worse than its baseline: by a difference that is no chance, and that is large enough to matter. What is worse follows
// from the limits, whose numbers do not count here: with an upper limit alone higher values are worse, with a lower limit alone lower ones, else both.
//
// No chance is a matter of the rank-sum test (Wilcoxon 1945; Mann and Whitney 1947). Error rates and latencies are skewed, and single runs are far out;
// the test asks only which of two values is the higher, so that neither matters, and it holds for any distribution. Its distribution is computed exactly,
// ties included, up to 60 runs, where small numbers of runs make approximations wrong; beyond, by the normal approximation with its corrections for ties
// and continuity. It looks at 1 % in each direction: an analysis of five queries then stops a good version in less than 5 % of cases.
//
// Large enough is a shift of a tenth. A test alone fails a canary for a difference of no importance as soon as there are runs enough to see it (Arcuri and
// Briand, ICSE 2011, ask for an effect size beside each test), and pods of one version differ by some percent for their nodes and neighbours: on public
// clouds slowdowns of about 10 % are what this test finds with high confidence (Laaber, Scheuner and Leitner, Empirical Software Engineering 24, 2019). The shift is
// Hodges and Lehmann's, which belongs to the test and which a run that is far out does not move. Cliff's delta alone would not do as the minimum: where
// runs hardly vary, a difference of 1 % separates them fully.
//
// Runs have to be independent: windows that overlap (lookbackMethod: growing) are not. Below 5 runs of each no result could be told from chance, so
// there is no verdict.
func Compare(canary, baseline []Run, l Limits) Comparison {
	c, b := counted(canary), counted(baseline)
	if tooMany := missing(canary, c); tooMany != "" {
		return Comparison{Verdict: Verdict{NoData, "canary: " + tooMany}}
	}
	if tooMany := missing(baseline, b); tooMany != "" {
		return Comparison{Verdict: Verdict{NoData, "baseline: " + tooMany}}
	}
	if 1/arrangements(len(c), len(b)) > Chance {
		return Comparison{Verdict: Verdict{NoData, fmt.Sprintf("%s of the canary and %s of the baseline are too few to tell a difference from chance; 5 of each are enough",
			count(len(c), "run"), count(len(b), "run"))}}
	}
	r := Comparison{Canary: median(c), Baseline: median(b), Shift: shift(c, b)}
	if r.Shift != 0 {
		larger := max(math.Abs(r.Canary), math.Abs(r.Baseline))
		r.Share = max(-1, min(r.Shift/larger, 1)) // also where both medians are 0
	}
	u, higher, lower := rankSum(c, b)
	r.Higher, r.Chance = u/float64(len(c)*len(b)), min(higher, lower)
	upIsWorse, downIsWorse := l.Upper != nil || l.Lower == nil, l.Lower != nil || l.Upper == nil
	switch {
	case upIsWorse && higher <= Chance && r.Share >= LeastShift:
		r.Verdict = Verdict{Failed, "the canary's values are higher than the baseline's: " + r.numbers()}
	case downIsWorse && lower <= Chance && r.Share <= -LeastShift:
		r.Verdict = Verdict{Failed, "the canary's values are lower than the baseline's: " + r.numbers()}
	default:
		r.Verdict = Verdict{Passed, "the canary does not do worse than the baseline: " + r.numbers()}
	}
	return r
}

func (r Comparison) numbers() string {
	return fmt.Sprintf("median %s against %s, shifted by %+.3g, higher in %.0f of 100 pairs of runs; chance does as much in %s of 100 cases",
		short(r.Canary), short(r.Baseline), r.Shift, 100*r.Higher, share(r.Chance))
}

func share(p float64) string {
	if p < 0.0001 {
		return "less than 0.01"
	}
	return fmt.Sprintf("%.2g", 100*p)
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return sorted[(n-1)/2]/2 + sorted[n/2]/2
}

// shift is the median of all differences; one too large for a number is the largest there is.
func shift(c, b []float64) float64 {
	halves := make([]float64, 0, len(c)*len(b))
	for _, x := range c {
		for _, y := range b {
			halves = append(halves, x/2-y/2)
		}
	}
	return max(-math.MaxFloat64, min(2*median(halves), math.MaxFloat64))
}
