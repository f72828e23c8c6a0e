package store

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/crypto/chacha20poly1305"

	"towpath/manifest"
)

// maxSealed is the largest content that is kept: a render's limit and what surrounds it.
const maxSealed = 128 << 20

// seals encrypts what is kept (XChaCha20-Poly1305). Each sealed text begins with the first bytes of its key's hash, so that keys can be changed one
// after another.
type seals struct {
	ids  [][keyIDSize]byte
	keys [][]byte
}

const keyIDSize = 8

func newSeals(keys [][]byte) (*seals, error) {
	if len(keys) == 0 {
		return nil, errors.New("no key to seal with: keyFile of the configuration must hold one")
	}
	s := &seals{keys: keys}
	for _, key := range keys {
		if len(key) != chacha20poly1305.KeySize {
			return nil, fmt.Errorf("a key to seal with has %d bytes, it must have %d", len(key), chacha20poly1305.KeySize)
		}
		sum := sha256.Sum256(append([]byte("towpath key id"), key...))
		s.ids = append(s.ids, [keyIDSize]byte(sum[:]))
	}
	return s, nil
}

// seal encrypts text; name is bound to it, so that a sealed text cannot stand under another name.
func (s *seals) seal(name string, text []byte) []byte {
	aead, err := chacha20poly1305.NewX(s.keys[0])
	if err != nil {
		panic(err) // the key's size was checked
	}
	out := make([]byte, keyIDSize+aead.NonceSize(), keyIDSize+aead.NonceSize()+len(text)+aead.Overhead())
	copy(out, s.ids[0][:])
	rand.Read(out[keyIDSize:])
	return aead.Seal(out, out[keyIDSize:], text, []byte(name))
}

func (s *seals) open(name string, sealed []byte) ([]byte, error) {
	if len(sealed) < keyIDSize+chacha20poly1305.NonceSizeX {
		return nil, fmt.Errorf("%s is damaged", name)
	}
	for i, id := range s.ids {
		if !bytes.Equal(id[:], sealed[:keyIDSize]) {
			continue
		}
		aead, err := chacha20poly1305.NewX(s.keys[i])
		if err != nil {
			return nil, err
		}
		rest := sealed[keyIDSize:]
		text, err := aead.Open(nil, rest[:aead.NonceSize()], rest[aead.NonceSize():], []byte(name))
		if err != nil {
			return nil, fmt.Errorf("%s is damaged: %w", name, err)
		}
		return text, nil
	}
	return nil, fmt.Errorf("%s was sealed with a key (%x) that keyFile does not hold", name, sealed[:keyIDSize])
}

// checkKeys proves that the keys are those of this database: at first it leaves a sealed word to be opened at each later start.
func (s *Store) checkKeys(ctx context.Context) error {
	const name = "key check"
	return s.write(ctx, "keys", func(tx *tx) error {
		var sealed []byte
		err := tx.queryRow(ctx, `SELECT content FROM sealed WHERE digest = ?`, name).Scan(&sealed)
		if errors.Is(err, sql.ErrNoRows) {
			_, err = tx.exec(ctx, `INSERT INTO sealed (digest, content, created_at) VALUES (?, ?, ?)`, name, s.seals.seal(name, []byte("towpath")), micros(tx.now()))
			return err
		}
		if err == nil {
			_, err = s.seals.open(name, sealed)
		}
		return err
	})
}

// put keeps content under a name, once.
func (tx *tx) put(ctx context.Context, name string, content []byte) error {
	var known int
	if err := tx.queryRow(ctx, `SELECT COUNT(*) FROM sealed WHERE digest = ?`, name).Scan(&known); err != nil || known > 0 {
		return err
	}
	if len(content) > maxSealed {
		return fmt.Errorf("%s has %d bytes; at most %d can be kept", name, len(content), maxSealed)
	}
	var packed bytes.Buffer
	zip, err := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
	if err != nil {
		return err
	}
	if _, err := zip.Write(content); err != nil {
		return err
	}
	if err := zip.Close(); err != nil {
		return err
	}
	_, err = tx.exec(ctx, `INSERT INTO sealed (digest, content, created_at) VALUES (?, ?, ?) ON CONFLICT (digest) DO NOTHING`,
		name, tx.store.seals.seal(name, packed.Bytes()), micros(tx.now()))
	return err
}

// get brings back what put kept.
func (tx *tx) get(ctx context.Context, name string) ([]byte, error) {
	var sealed []byte
	err := tx.queryRow(ctx, `SELECT content FROM sealed WHERE digest = ?`, name).Scan(&sealed)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("nothing is sealed under %s", name)
	}
	if err != nil {
		return nil, err
	}
	packed, err := tx.store.seals.open(name, sealed)
	if err != nil {
		return nil, err
	}
	zip, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", name, err)
	}
	return io.ReadAll(io.LimitReader(zip, maxSealed))
}

// seal keeps sets of manifests by their digests.
func (tx *tx) seal(ctx context.Context, sets map[string][]manifest.Object) error {
	for digest, objects := range sets {
		text, err := json.Marshal(objects)
		if err != nil {
			return err
		}
		if err := tx.put(ctx, digest, text); err != nil {
			return err
		}
	}
	return nil
}

// sealedFile begins what stands for the text of a deployment file.
const sealedFile = "file:"

// sealFile keeps the text of a deployment file, which may hold what is secret, and returns what stands for it.
func (tx *tx) sealFile(ctx context.Context, text []byte) (name string, err error) {
	sum := sha256.Sum256(text)
	name = sealedFile + hex.EncodeToString(sum[:])
	return name, tx.put(ctx, name, text)
}

// fileText is what sealFile kept. Databases of earlier versions have the text itself.
func (tx *tx) fileText(ctx context.Context, name string) ([]byte, error) {
	if !strings.HasPrefix(name, sealedFile) {
		return []byte(name), nil
	}
	return tx.get(ctx, name)
}

// Manifests opens a sealed set.
func (s *Store) Manifests(ctx context.Context, digest string) (objects []manifest.Object, err error) {
	err = s.read(ctx, func(tx *tx) error {
		text, err := tx.get(ctx, digest)
		if err != nil {
			return err
		}
		return json.Unmarshal(text, &objects)
	})
	return objects, err
}

// SealUpload keeps an upload by its digest.
func (s *Store) SealUpload(ctx context.Context, digest string, files map[string][]byte) error {
	text, err := json.Marshal(files)
	if err != nil {
		return err
	}
	return s.write(ctx, "upload", func(tx *tx) error { return tx.put(ctx, "upload:"+digest, text) })
}

// SealedUpload brings an upload back.
func (s *Store) SealedUpload(ctx context.Context, digest string) (files map[string][]byte, err error) {
	err = s.read(ctx, func(tx *tx) error {
		text, err := tx.get(ctx, "upload:"+digest)
		if err != nil {
			return err
		}
		return json.Unmarshal(text, &files)
	})
	return files, err
}

// Keep keeps content under a name, unless something is kept there already, and returns what is kept.
func (s *Store) Keep(ctx context.Context, name string, content []byte) (kept []byte, err error) {
	err = s.write(ctx, "keep", func(tx *tx) error {
		if err := tx.put(ctx, name, content); err != nil {
			return err
		}
		kept, err = tx.get(ctx, name)
		return err
	})
	return kept, err
}

// Kept is what Keep kept under a name.
func (s *Store) Kept(ctx context.Context, name string) (content []byte, found bool, err error) {
	err = s.read(ctx, func(tx *tx) error {
		var count int
		if err := tx.queryRow(ctx, `SELECT COUNT(*) FROM sealed WHERE digest = ?`, name).Scan(&count); err != nil || count == 0 {
			return err
		}
		found = true
		content, err = tx.get(ctx, name)
		return err
	})
	return content, found, err
}

// NamingKey is a secret of this installation that names of objects are made with, so that they tell nothing about the content they depend on. At first it is
// derived from the oldest of the keys, which is the last one, so that a database made anew gives the same names; later it stays as it is, whatever keys come.
func (s *Store) NamingKey(ctx context.Context) ([]byte, error) {
	derived, err := hkdf.Key(sha256.New, s.seals.keys[len(s.seals.keys)-1], nil, "towpath names", 32)
	if err != nil {
		return nil, err
	}
	return s.Keep(ctx, "naming key", derived)
}

// Derived is a secret of this installation for one purpose. It is derived from the key that seals, so it changes with that one.
func (s *Store) Derived(purpose string) ([]byte, error) {
	return hkdf.Key(sha256.New, s.seals.keys[0], nil, purpose, 32)
}
