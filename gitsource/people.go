package gitsource

import (
	"container/heap"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/object"
)

// deepest is how many commits People reads at most: beyond, those of the newest are named.
const deepest = 10_000

// People names who wrote or committed what newer has and older has not, each once, those of the newest commit first. Where older is "" or not in the mirror
// any more, it is those of newer alone. With clocks that went wrong, people of commits that older has too may be among them; nobody is left out.
func (m *Mirror) People(older, newer string) ([]Person, error) {
	s, tip, err := m.find(newer)
	if err != nil {
		return nil, err
	}
	var people people
	people.add(tip)
	_, base, err := m.find(older)
	if err != nil {
		return people.all, nil
	}
	w := walk{store: s, shipped: map[hash]bool{}, seen: map[hash]bool{}}
	w.push(base, true)
	w.push(tip, false)
	for reads := 0; w.open > 0 && reads < deepest; reads++ {
		c := heap.Pop(&w.queue).(*object.Commit)
		shipped := w.shipped[c.Hash]
		if !shipped {
			w.open--
			people.add(c)
		}
		for _, parent := range c.ParentHashes {
			if !s.has(parent) { // the source may be a shallow clone
				continue
			}
			p, err := s.commit(parent)
			if err != nil {
				return nil, err
			}
			w.push(p, shipped)
		}
	}
	return people.all, nil
}

// walk goes through commits from the newest to the oldest, so that what older has is mostly known before it is met from newer.
type walk struct {
	store   *store
	queue   byTime
	open    int // commits of the queue that older is not known to have
	shipped map[hash]bool
	seen    map[hash]bool
}

func (w *walk) push(c *object.Commit, shipped bool) {
	seen, was := w.seen[c.Hash], w.shipped[c.Hash]
	w.seen[c.Hash], w.shipped[c.Hash] = true, was || shipped
	switch {
	case !seen:
		heap.Push(&w.queue, c)
		if !shipped {
			w.open++
		}
	case shipped && !was && slices.ContainsFunc(w.queue, func(o *object.Commit) bool { return o.Hash == c.Hash }):
		w.open--
	}
}

type byTime []*object.Commit

func (q byTime) Len() int           { return len(q) }
func (q byTime) Less(i, j int) bool { return q[i].Committer.When.After(q[j].Committer.When) }
func (q byTime) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *byTime) Push(c any)        { *q = append(*q, c.(*object.Commit)) }

func (q *byTime) Pop() any {
	last := len(*q) - 1
	c := (*q)[last]
	*q = (*q)[:last]
	return c
}

// people is a list without repetitions.
type people struct {
	all  []Person
	seen map[string]bool
}

func (p *people) add(c *object.Commit) {
	for _, who := range []Person{person(c.Author), person(c.Committer)} {
		name := strings.ToLower(who.Name + "\x00" + who.Email)
		if p.seen == nil {
			p.seen = map[string]bool{}
		}
		if !p.seen[name] {
			p.seen[name] = true
			p.all = append(p.all, who)
		}
	}
}
