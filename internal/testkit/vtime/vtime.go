// Package vtime runs what happens side by side in virtual time, one thing after the other, in an order that depends on nothing but what is asked of it: a
// test that takes its chances from a seed goes exactly the same way again. An hour costs as much as what happens in it.
package vtime

import (
	"container/heap"
	"fmt"
	"iter"
	"runtime/debug"
	"time"
)

// World has a clock, and what happens next. It is used by one goroutine; tasks are coroutines of it.
type World struct {
	now     time.Time
	next    events
	count   int
	current *task
}

// New makes a world in which nothing happens yet.
func New(start time.Time) *World { return &World{now: start} }

// Now is the world's time.
func (w *World) Now() time.Time { return w.now }

// After does something later, outside of all tasks: it must not sleep.
func (w *World) After(d time.Duration, do func()) {
	w.count++
	heap.Push(&w.next, event{w.now.Add(max(d, 0)), w.count, do})
}

// Next is when something happens next; false when nothing does.
func (w *World) Next() (at time.Time, any bool) {
	if len(w.next) == 0 {
		return time.Time{}, false
	}
	return w.next[0].at, true
}

// Step lets the next thing happen.
func (w *World) Step() {
	e := heap.Pop(&w.next).(event)
	w.Advance(e.at)
	e.do()
}

// Advance moves the clock forward; what was to happen before then happens late.
func (w *World) Advance(to time.Time) {
	if to.After(w.now) {
		w.now = to
	}
}

// Group is tasks that end together, as those of a process do when it is killed.
type Group struct {
	tasks  []*task
	killed bool
}

// task is a coroutine of the world.
type task struct {
	group *Group
	value any
	yield func(time.Duration) bool
	next  func() (time.Duration, bool)
	stop  func()
}

// killed is what unwinds a task.
type killed struct{}

// Go begins a task, at the present time but not before the caller sleeps or is done. A killed group begins none.
func (w *World) Go(group *Group, do func()) {
	if group.killed {
		return
	}
	t := &task{group: group}
	t.next, t.stop = iter.Pull(func(yield func(time.Duration) bool) {
		defer func() {
			if p := recover(); p != nil {
				if _, dies := p.(killed); !dies {
					panic(fmt.Sprintf("%v\n%s", p, debug.Stack()))
				}
			}
		}()
		t.yield = yield
		do()
	})
	group.tasks = append(group.tasks, t)
	w.After(0, func() { w.resume(t) })
}

func (w *World) resume(t *task) {
	if t.group.killed {
		return
	}
	w.current = t
	d, more := t.next()
	w.current = nil
	if more && !t.group.killed {
		w.After(d, func() { w.resume(t) })
		return
	}
	if t.group.killed {
		t.group.end()
		return
	}
	for i, other := range t.group.tasks {
		if other == t {
			t.group.tasks = append(t.group.tasks[:i], t.group.tasks[i+1:]...)
			break
		}
	}
}

// Sleep lets a while pass for the task that calls it; others go on. Outside of tasks it does nothing.
func (w *World) Sleep(d time.Duration) {
	t := w.current
	if t == nil {
		return
	}
	if t.group.killed || !t.yield(d) {
		panic(killed{})
	}
}

// Kill ends all tasks of a group where they are; when a task of the group calls it, it does not return.
func (w *World) Kill(g *Group) {
	g.killed = true
	if w.current != nil && w.current.group == g {
		panic(killed{})
	}
	g.end()
}

func (g *Group) end() {
	tasks := g.tasks
	g.tasks = nil
	for _, t := range tasks {
		t.stop()
	}
}

// SetValue keeps something with the task that calls it; Value gives it back, nil outside of tasks.
func (w *World) SetValue(v any) { w.current.value = v }

// Value is what the task that calls it keeps.
func (w *World) Value() any {
	if w.current == nil {
		return nil
	}
	return w.current.value
}

type event struct {
	at    time.Time
	order int
	do    func()
}

// events is a heap, the nearest first, and those of one time in the order in which they were asked for.
type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at.Before(e[j].at) || e[i].at.Equal(e[j].at) && e[i].order < e[j].order
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	last := old[len(old)-1]
	*e = old[:len(old)-1]
	return last
}
