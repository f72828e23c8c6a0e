package agent_test

import (
	"context"
	"slices"
	"sync"

	"towpath/issuer"
)

// memory is an issuer.Store.
type memory struct {
	mu      sync.Mutex
	keys    []issuer.Key
	clients map[string]issuer.Client
}

func newStore() *memory { return &memory{clients: map[string]issuer.Client{}} }

func (m *memory) Keys(context.Context) ([]issuer.Key, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.keys), nil
}

func (m *memory) SaveKey(_ context.Context, key issuer.Key) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !slices.ContainsFunc(m.keys, func(k issuer.Key) bool { return k.ID == key.ID }) {
		m.keys = append(m.keys, key)
	}
	return nil
}

func (m *memory) DeleteKey(_ context.Context, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.keys = slices.DeleteFunc(m.keys, func(k issuer.Key) bool { return k.ID == id })
	return nil
}

func (m *memory) Client(_ context.Context, id string) (issuer.Client, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	client, ok := m.clients[id]
	if !ok {
		return issuer.Client{}, issuer.ErrNotFound
	}
	return client, nil
}

func (m *memory) SaveClient(_ context.Context, client issuer.Client) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.clients[client.ID].Version != client.Version {
		return issuer.ErrConflict
	}
	client.Version++
	m.clients[client.ID] = client
	return nil
}
