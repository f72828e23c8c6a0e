package main

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestATokenIsRenewedAtHalfItsTimeAndAgainAMinuteAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		began := time.Now()
		var at []time.Duration
		keepFresh(ctx, began.Add(24*time.Hour), func() (time.Time, error) {
			at = append(at, time.Since(began))
			switch len(at) {
			case 2:
				return time.Time{}, errors.New("the API server is away")
			case 4:
				cancel()
			}
			return time.Now().Add(2 * time.Hour), nil
		})
		if want := []time.Duration{12 * time.Hour, 13 * time.Hour, 13*time.Hour + time.Minute, 14*time.Hour + time.Minute}; !slices.Equal(at, want) {
			t.Errorf("renewed after %v, want %v", at, want)
		}
	})
}
