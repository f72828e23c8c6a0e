package judge

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"testing"
)

// Counted by hand, or in the tables of Mann and Whitney (1947).
func TestUAndItsChanceAreThoseOfTheTables(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		canary, baseline []float64
		u, higher, lower float64
	}{
		"one of each":                         {[]float64{2}, []float64{1}, 1, 1. / 2, 1},
		"three fully above three":             {[]float64{4, 5, 6}, []float64{1, 2, 3}, 9, 1. / 20, 1},
		"three fully below three":             {[]float64{1, 2, 3}, []float64{4, 5, 6}, 0, 1, 1. / 20},
		"three above three but for a pair":    {[]float64{3, 5, 6}, []float64{1, 2, 4}, 8, 2. / 20, 19. / 20},
		"three above three but for two pairs": {[]float64{2, 5, 6}, []float64{1, 3, 4}, 7, 4. / 20, 18. / 20},
		"five fully above five":               {[]float64{6, 7, 8, 9, 10}, []float64{1, 2, 3, 4, 5}, 25, 1. / 252, 1},
		"five above five, U' = 2":             {[]float64{4, 7, 8, 9, 10}, []float64{1, 2, 3, 5, 6}, 23, 4. / 252, 250. / 252},
		"two above four":                      {[]float64{5, 6}, []float64{1, 2, 3, 4}, 8, 1. / 15, 1},
		// {1, 1, 2, 2}: the ranks are 1.5, 1.5, 3.5, 3.5; of six pairs of them one has the sum 3, four have 5, one has 7.
		"ties within each side":  {[]float64{2, 2}, []float64{1, 1}, 4, 1. / 6, 1},
		"ties between the sides": {[]float64{1, 2}, []float64{1, 2}, 2, 5. / 6, 5. / 6},
		"all the same":           {[]float64{0, 0, 0}, []float64{0, 0, 0, 0}, 6, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u, higher, lower := rankSum(c.canary, c.baseline)
			if u != c.u || math.Abs(higher-c.higher) > 1e-12 || math.Abs(lower-c.lower) > 1e-12 {
				t.Errorf("U %v, higher %v, lower %v; want %v, %v, %v", u, higher, lower, c.u, c.higher, c.lower)
			}
		})
	}
}

func TestCountingOutIsTryingEachArrangement(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		c, b := few(random, 1+random.IntN(6)), few(random, 1+random.IntN(6))
		_, higher, lower := rankSum(c, b)
		ranks, _ := doubledRanks(c, b)
		sum := 0
		for _, r := range ranks[:len(c)] {
			sum += r
		}
		var all, above, below float64
		for chosen := range uint(1) << len(ranks) {
			if bits.OnesCount(chosen) != len(c) {
				continue
			}
			s := 0
			for i, r := range ranks {
				if chosen&(1<<i) != 0 {
					s += r
				}
			}
			all++
			if s >= sum {
				above++
			}
			if s <= sum {
				below++
			}
		}
		if all != math.Round(arrangements(len(c), len(b))) || math.Abs(higher-above/all) > 1e-12 || math.Abs(lower-below/all) > 1e-12 {
			t.Fatalf("seed %d: %v against %v: higher %v, lower %v; tried: %v, %v of %v", seed, c, b, higher, lower, above/all, below/all, all)
		}
	}
}

// Where both are possible they agree, so that a run more does not turn a verdict around.
func TestTheApproximationGoesOnWhereCountingOutEnds(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 2))
		c, b := few(random, exactUpTo/2), few(random, exactUpTo/2)
		for i := range c {
			c[i] += float64(seed % 4) // also where the sides differ, which is where verdicts are
		}
		u, higher, lower := rankSum(c, b)
		_, ties := doubledRanks(c, b)
		if h, l := approximate(u, float64(len(c)), float64(len(b)), ties); math.Abs(h-higher) > 0.005 || math.Abs(l-lower) > 0.005 {
			t.Errorf("seed %d: counted out %v and %v, approximated %v and %v", seed, higher, lower, h, l)
		}
	}
	same := make([]float64, exactUpTo)
	if u, higher, lower := rankSum(same, same); u != exactUpTo*exactUpTo/2 || higher != 1 || lower != 1 {
		t.Errorf("all the same: U %v, higher %v, lower %v", u, higher, lower)
	}
}

// few are values of which many are equal.
func few(random *rand.Rand, n int) []float64 {
	values := make([]float64, n)
	for i := range values {
		values[i] = float64(random.IntN(11))
	}
	return values
}
