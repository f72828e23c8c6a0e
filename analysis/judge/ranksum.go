package judge

import (
	"math"
	"slices"
)

// exactUpTo is how many runs of both sides together are counted out: some million additions.
const exactUpTo = 60

// rankSum gives Mann and Whitney's U of c against b (the pairs in which c is the higher, ties half), and how likely a U at least as high, and one at most as
// high, is among all ways in which the same values could have been dealt out to the two sides.
func rankSum(c, b []float64) (u, higher, lower float64) {
	ranks, ties := doubledRanks(c, b)
	sum := 0
	for _, r := range ranks[:len(c)] {
		sum += r
	}
	m, n := float64(len(c)), float64(len(b))
	u = float64(sum)/2 - m*(m+1)/2
	if len(ranks) <= exactUpTo {
		higher, lower = countOut(ranks, len(c), sum)
		return u, higher, lower
	}
	higher, lower = approximate(u, m, n, ties)
	return u, higher, lower
}

// approximate takes U for normal, with the corrections for ties and for U's steps.
func approximate(u, m, n, ties float64) (higher, lower float64) {
	deviation := math.Sqrt(m * n / 12 * ((m + n + 1) - ties/((m+n)*(m+n-1))))
	if deviation == 0 { // all values are the same
		return 1, 1
	}
	above := u - m*n/2
	return beyond((above - 0.5) / deviation), beyond((-above - 0.5) / deviation)
}

// beyond is the share of the normal distribution above z.
func beyond(z float64) float64 { return math.Erfc(z/math.Sqrt2) / 2 }

// doubledRanks gives twice the rank of each value among all, those of c first. Equal values share the mean of their ranks, so that twice of it is whole.
// ties is the sum of t³ − t over groups of t equal values.
func doubledRanks(c, b []float64) (ranks []int, ties float64) {
	all := slices.Concat(c, b)
	sorted := slices.Sorted(slices.Values(all))
	ranks = make([]int, len(all))
	for i, v := range all {
		first, _ := slices.BinarySearch(sorted, v)
		after := first
		for after < len(sorted) && sorted[after] == v {
			after++
		}
		ranks[i] = first + after + 1
		t := float64(after - first)
		ties += t*t - 1 // of each of the t members
	}
	return ranks, ties
}

// countOut counts the choices of m ranks by their sum (the shift algorithm of Streitberg and Röhmel, 1986), and gives the shares with a sum of at least,
// and of at most, what it is.
func countOut(ranks []int, m, sum int) (atLeast, atMost float64) {
	ranks = slices.Sorted(slices.Values(ranks))
	least := make([]int, len(ranks)+1) // the sum of so many of the lowest
	for i, r := range ranks {
		least[i+1] = least[i] + r
	}
	ways := make([][]float64, m+1) // by how many were chosen, and their sum
	for k := range ways {
		ways[k] = make([]float64, least[len(ranks)]+1)
	}
	ways[0][0] = 1
	for i, r := range ranks {
		for k := min(i+1, m); k > 0 && k >= m-(len(ranks)-i-1); k-- { // with fewer, what is left would not be enough
			highest := least[i+1] - least[i+1-k]
			for s := max(least[k], r); s <= highest; s++ {
				ways[k][s] += ways[k-1][s-r]
			}
		}
	}
	var all float64
	for s, w := range ways[m] {
		all += w
		if s >= sum {
			atLeast += w
		}
		if s <= sum {
			atMost += w
		}
	}
	return atLeast / all, atMost / all
}

// arrangements is the number of ways to deal out m + n runs to two sides.
func arrangements(m, n int) float64 {
	a := 1.0
	for i := 1; i <= m; i++ {
		a *= float64(n+i) / float64(i)
	}
	return a
}
