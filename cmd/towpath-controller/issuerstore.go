package main

import (
	"context"
	"encoding/json"
	"errors"

	"towpath/issuer"
	"towpath/store"
)

// issuerStore keeps the issuer's keys and clients in the store.
type issuerStore struct {
	store *store.Store
	// others, when set, knows clients that are none of the issuer's own.
	others func(ctx context.Context, id string) (issuer.Client, error)
}

func (s issuerStore) Keys(ctx context.Context) ([]issuer.Key, error) {
	kept, err := s.store.IssuerKeys(ctx)
	keys := make([]issuer.Key, len(kept))
	for i, k := range kept {
		keys[i] = issuer.Key(k)
	}
	return keys, err
}

func (s issuerStore) SaveKey(ctx context.Context, key issuer.Key) error {
	return s.store.SaveIssuerKey(ctx, store.IssuerKey(key))
}

func (s issuerStore) DeleteKey(ctx context.Context, id string) error {
	return s.store.DeleteIssuerKey(ctx, id)
}

func (s issuerStore) Client(ctx context.Context, id string) (issuer.Client, error) {
	data, version, err := s.store.IssuerClient(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		if s.others != nil {
			return s.others(ctx, id)
		}
		return issuer.Client{}, issuer.ErrNotFound
	}
	var client issuer.Client
	if err == nil {
		err = json.Unmarshal([]byte(data), &client)
	}
	client.Version = version
	return client, err
}

func (s issuerStore) SaveClient(ctx context.Context, client issuer.Client) error {
	data, err := json.Marshal(client)
	if err != nil {
		return err
	}
	err = s.store.SaveIssuerClient(ctx, client.ID, string(data), client.Version)
	if errors.Is(err, store.ErrConflict) {
		return issuer.ErrConflict
	}
	return err
}
