package gitsource

import (
	"container/list"
	"sync"
)

// cache keeps the least recently used out, by bytes. What it holds is never changed: objects are named by their content.
// Safe for concurrent use.
type cache[V any] struct {
	mu    sync.Mutex
	max   int64
	used  int64
	order *list.List // of *cached[V], newest first
	items map[hash]*list.Element
}

type cached[V any] struct {
	key   hash
	value V
	cost  int64
}

func newCache[V any](max int64) *cache[V] {
	return &cache[V]{max: max, order: list.New(), items: map[hash]*list.Element{}}
}

func (c *cache[V]) get(key hash) (V, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok := c.items[key]
	if !ok {
		var none V
		return none, false
	}
	c.order.MoveToFront(at)
	return at.Value.(*cached[V]).value, true
}

// put keeps a value whose size is cost bytes. One that would push out more than an eighth of the others is not kept: a single large file
// must not make every render slow.
func (c *cache[V]) put(key hash, value V, cost int64) {
	const overhead = 160 // of the map's and the list's own
	cost += overhead
	if cost > c.max/8 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.items[key]; ok {
		return
	}
	c.items[key] = c.order.PushFront(&cached[V]{key: key, value: value, cost: cost})
	for c.used += cost; c.used > c.max; {
		oldest := c.order.Back()
		item := c.order.Remove(oldest).(*cached[V])
		delete(c.items, item.key)
		c.used -= item.cost
	}
}
