package main

import (
	"fmt"
	"slices"
	"time"
)

// samples are how long something took, each time.
type samples []time.Duration

// at is the share-th quantile in milliseconds: the smallest sample that so many are not longer than.
func (s samples) at(share float64) float64 {
	sorted := slices.Sorted(slices.Values(s))
	i := int(share*float64(len(sorted))+0.999999) - 1
	return milliseconds(sorted[min(max(i, 0), len(sorted)-1)])
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (s samples) String() string {
	return fmt.Sprintf("%d times, %.4g to %.4g ms", len(s), s.at(0), s.at(1))
}
