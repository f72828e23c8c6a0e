package judge_test

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	. "towpath/analysis/judge"
)

var (
	higherIsWorse = Limits{Upper: limit(0)}
	lowerIsWorse  = Limits{Lower: limit(0)}
	eitherIsWorse = Limits{limit(0), limit(0)}
)

func TestACanaryIsComparedWithItsBaseline(t *testing.T) {
	t.Parallel()
	none := Run{NoData: true}
	low, high := runs(10, 11, 12, 13, 14), runs(20, 21, 22, 23, 24)
	for name, c := range map[string]struct {
		canary, baseline []Run
		limits           Limits
		result           Result
		says             string
	}{
		"higher, which is worse": {high, low, higherIsWorse, Failed,
			"the canary's values are higher than the baseline's: median 22 against 12, shifted by +10, higher in 100 of 100 pairs of runs; chance does as much in 0.4 of 100 cases"},
		"higher, which is better":            {high, low, lowerIsWorse, Passed, "the canary does not do worse than the baseline: median 22 against 12"},
		"lower, which is worse":              {low, high, lowerIsWorse, Failed, "the canary's values are lower than the baseline's: median 12 against 22, shifted by -10, higher in 0 of 100 pairs"},
		"lower, which is better":             {low, high, higherIsWorse, Passed, "does not do worse"},
		"higher, and either is worse":        {high, low, eitherIsWorse, Failed, "values are higher"},
		"lower, and either is worse":         {low, high, eitherIsWorse, Failed, "values are lower"},
		"different, without limits":          {low, high, Limits{}, Failed, "values are lower"},
		"the same":                           {low, low, higherIsWorse, Passed, "median 12 against 12, shifted by +0, higher in 50 of 100 pairs"},
		"errors where there were none":       {runs(1, 2, 3, 4, 5), runs(0, 0, 0, 0, 0), higherIsWorse, Failed, "median 3 against 0"},
		"no errors on either side":           {runs(0, 0, 0, 0, 0), runs(0, 0, 0, 0, 0), higherIsWorse, Passed, "median 0 against 0"},
		"surely higher, but by little":       {runs(105.1, 105.2, 105.3, 105.4, 105.5), runs(100.1, 100.2, 100.3, 100.4, 100.5), higherIsWorse, Passed, "shifted by +5, higher in 100 of 100"},
		"much higher, but perhaps by chance": {runs(8, 30, 31, 32, 9), runs(10, 11, 12, 13, 14), higherIsWorse, Passed, "higher in 60 of 100 pairs"},
		"one run of the baseline far out":    {append(high, runs(20, 21, 22, 23, 24)...), runs(10, 11, 12, 13, 1e6, 10, 11, 12), higherIsWorse, Failed, "values are higher"},
		"too few runs":                       {runs(2, 3, 4, 5), runs(1, 1, 1, 1), higherIsWorse, NoData, "4 runs of the canary and 4 runs of the baseline are too few to tell a difference from chance; 5 of each"},
		"too few runs that have data":        {append(runs(2, 3, 4, 5), none), append(runs(1, 1, 1, 1), none), higherIsWorse, NoData, "4 runs of the canary"},
		"a canary without data":              {[]Run{none, none, none}, low, higherIsWorse, NoData, "canary: 3 of 3 runs had no data"},
		"a baseline mostly without data":     {high, append(runs(1, 2), none, none, none), higherIsWorse, NoData, "baseline: 3 of 5 runs had no data"},
		"nothing":                            {nil, nil, higherIsWorse, NoData, "canary: nothing was measured"},
		"values at the end of all numbers":   {runs(1e308, 1.1e308, 1.2e308, 1.3e308, 1.7e308), runs(-1e308, -1.1e308, -1.2e308, -1.3e308, -1.7e308), higherIsWorse, Failed, "median 1.2e+308"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := Compare(c.canary, c.baseline, c.limits)
			want(t, got.Verdict, c.result, c.says)
			if _, err := json.Marshal(got); err != nil {
				t.Errorf("it cannot be written down: %v", err)
			}
		})
	}
}

// What always holds, for any runs.
func TestComparisonsAreFair(t *testing.T) {
	t.Parallel()
	for seed := range uint64(500) {
		random := rand.New(rand.NewPCG(seed, 3))
		c, b := made(random, latencies(1+float64(seed%3)/4)), made(random, latencies(1))
		if seed%2 == 0 {
			c, b = made(random, errorRate(200, 0.01*float64(1+seed%3))), made(random, errorRate(200, 0.01))
		}
		limits := []Limits{higherIsWorse, lowerIsWorse, eitherIsWorse}[seed%3]
		there, back := Compare(runs(c...), runs(b...), limits), Compare(runs(b...), runs(c...), opposite(limits))
		if there.Result != back.Result || there.Shift != -back.Shift || near(there.Higher, 1-back.Higher) || near(there.Chance, back.Chance) {
			t.Errorf("seed %d: it is another comparison from the other side:\n%+v\n%+v", seed, there, back)
		}
		for _, factor := range []float64{1024, 1. / 1024, 3.3} {
			if scaled := Compare(runs(times(c, factor)...), runs(times(b, factor)...), limits); scaled.Result != there.Result || near(scaled.Higher, there.Higher) || near(scaled.Share, there.Share) {
				t.Errorf("seed %d: in another unit (× %v) it is another comparison:\n%+v\n%+v", seed, factor, there, scaled)
			}
		}
		shuffled := slices.Clone(c)
		random.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if other := Compare(runs(shuffled...), runs(b...), limits); other != there {
			t.Errorf("seed %d: the order of runs matters:\n%+v\n%+v", seed, there, other)
		}
		if there.Result == Failed && Compare(runs(times(c, 10)...), runs(b...), higherIsWorse).Result != Failed && limits == higherIsWorse {
			t.Errorf("seed %d: a canary that is worse still passes", seed)
		}
	}
}

func near(a, b float64) bool { return math.Abs(a-b) > 1e-9 }

func opposite(l Limits) Limits { return Limits{Lower: l.Upper, Upper: l.Lower} }

func times(values []float64, factor float64) (all []float64) {
	for _, v := range values {
		all = append(all, v*factor)
	}
	return all
}

// sampler makes the value of one run.
type sampler func(*rand.Rand) float64

// errorRate is the share of errors among so many requests.
func errorRate(requests int, share float64) sampler {
	return func(random *rand.Rand) float64 {
		errors := -1
		for at := 0.0; at <= float64(requests); errors++ { // from error to error, which is as far as it geometrically is
			at += 1 + math.Floor(math.Log(1-random.Float64())/math.Log1p(-share))
		}
		return float64(errors) / float64(requests)
	}
}

// restless is an error rate that itself goes up and down by a fifth from run to run, as those of live services do.
func restless(requests int, share float64) sampler {
	return func(random *rand.Rand) float64 {
		return errorRate(requests, share*math.Exp(0.2*random.NormFloat64()))(random)
	}
}

// latencies are skewed, with a run far out now and then.
func latencies(factor float64) sampler {
	return func(random *rand.Rand) float64 {
		v := factor * 0.2 * math.Exp(0.3*random.NormFloat64())
		if random.IntN(20) == 0 {
			v *= 10
		}
		return v
	}
}

func made(random *rand.Rand, s sampler) []float64 {
	return sample(random, s, 5+random.IntN(20))
}

func sample(random *rand.Rand, s sampler, n int) []float64 {
	values := make([]float64, n)
	for i := range values {
		values[i] = s(random)
	}
	return values
}

// failures counts, of a thousand rollouts, those whose comparison fails.
func failures(canary, baseline sampler, n int, limits Limits) int {
	failed := 0
	for seed := range uint64(1000) {
		random := rand.New(rand.NewPCG(seed, uint64(n)))
		if Compare(runs(sample(random, canary, n)...), runs(sample(random, baseline, n)...), limits).Result == Failed {
			failed++
		}
	}
	return failed
}

// 1,000 requests a run are a minute at 17 requests a second; 10 runs are then an analysis of ten minutes.
func TestEqualVersionsRarelyFail(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		version sampler
		runs    int
		limits  Limits
	}{
		"1 % errors of 1,000 requests, 10 runs":               {errorRate(1000, 0.01), 10, higherIsWorse},
		"1 % errors of 1,000 requests, 5 runs":                {errorRate(1000, 0.01), 5, higherIsWorse},
		"1 % errors of 300 requests, 20 runs":                 {errorRate(300, 0.01), 20, higherIsWorse},
		"0.1 % errors of 300 requests, mostly none, 30 runs":  {errorRate(300, 0.001), 30, higherIsWorse},
		"an error rate that goes up and down, 10 runs":        {restless(1000, 0.01), 10, higherIsWorse},
		"latencies with runs far out, 20 runs":                {latencies(1), 20, higherIsWorse},
		"latencies with runs far out, 100 runs, approximated": {latencies(1), 100, higherIsWorse},
		"a throughput, where lower is worse, 10 runs":         {latencies(1), 10, lowerIsWorse},
		"a value that may neither rise nor fall, 10 runs":     {latencies(1), 10, eitherIsWorse},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			failed := failures(c.version, c.version, c.runs, c.limits)
			t.Logf("%d of 1,000 failed", failed)
			if failed > 50 {
				t.Errorf("%d of 1,000 equal versions failed, more than 5 %%", failed)
			}
		})
	}
}

func TestADoubledErrorRateFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		baseline, canary sampler
		runs             int
	}{
		"from 1 % of 1,000 requests, 10 runs":                      {errorRate(1000, 0.01), errorRate(1000, 0.02), 10},
		"from 2 % of 1,000 requests, 6 runs":                       {errorRate(1000, 0.02), errorRate(1000, 0.04), 6},
		"from 1 % of 300 requests, 20 runs":                        {errorRate(300, 0.01), errorRate(300, 0.02), 20},
		"from 0.1 % of 1,000 requests, 60 runs, approximated":      {errorRate(1000, 0.001), errorRate(1000, 0.002), 60},
		"from 1 % of 1,000 requests, going up and down, 10 runs":   {restless(1000, 0.01), restless(1000, 0.02), 10},
		"latencies half as long again, with runs far out, 30 runs": {latencies(1), latencies(1.5), 30},
		"latencies a quarter longer, with runs far out, 90 runs":   {latencies(1), latencies(1.25), 90},
		"from no error at all to 1 % of 300 requests, 10 runs":     {errorRate(300, 0), errorRate(300, 0.01), 10},
		"from 5 % of 100 requests, a small service, 20 runs":       {errorRate(100, 0.05), errorRate(100, 0.1), 20},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			failed := failures(c.canary, c.baseline, c.runs, higherIsWorse)
			t.Logf("%d of 1,000 failed", failed)
			if failed < 900 {
				t.Errorf("%d of 1,000 worse versions failed, less than 90 %%", failed)
			}
		})
	}
}
