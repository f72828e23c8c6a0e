package simulate

import (
	"container/heap"
	"time"
)

// wake is a moment at which a lane is to be advanced.
type wake struct {
	at   time.Time
	turn int // of those of one moment, the first that was asked for comes first
	lane *lane
}

// wakes is a queue of them, the nearest first.
type wakes []wake

func (w wakes) Len() int      { return len(w) }
func (w wakes) Swap(i, j int) { w[i], w[j] = w[j], w[i] }
func (w *wakes) Push(x any)   { *w = append(*w, x.(wake)) }

func (w wakes) Less(i, j int) bool {
	if !w[i].at.Equal(w[j].at) {
		return w[i].at.Before(w[j].at)
	}
	return w[i].turn < w[j].turn
}

func (w *wakes) Pop() any {
	last := (*w)[len(*w)-1]
	*w = (*w)[:len(*w)-1]
	return last
}

func (w *wakes) take() wake { return heap.Pop(w).(wake) }

// wakeAt has a lane advanced at a moment; the zero time is none.
func (s *simulation) wakeAt(l *lane, at time.Time) {
	if at.IsZero() {
		return
	}
	s.turn++
	heap.Push(&s.wakes, wake{at, s.turn, l})
}
