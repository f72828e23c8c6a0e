package memstore_test

import (
	"testing"
	"time"

	"towpath/internal/testkit/memstore"
	"towpath/store/storetest"
)

func TestItIsAStoreAsAnyOther(t *testing.T) {
	for name, exclusive := range map[string]bool{"of one process": true, "of several": false} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(_ *testing.T, clock func() time.Time) storetest.Opened {
				s := memstore.New(clock)
				s.Exclusive = exclusive
				return storetest.Opened{Store: s, Asked: s.Asked, Woken: func() (lanes []int64) {
					for len(s.Wakes()) > 0 {
						lanes = append(lanes, <-s.Wakes())
					}
					return lanes
				}, Exclusive: exclusive}
			})
		})
	}
}
