package sops

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"
	"github.com/ProtonMail/go-crypto/openpgp"
	armored "github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// KeyFiles names files with private keys.
type KeyFiles struct {
	Age []string // as age-keygen writes them: a key a line, and comments
	PGP []string // as gpg --export-secret-keys writes them, armored or not; without a passphrase
}

// Keys are private keys. The zero value has none.
type Keys struct {
	age []ageKey
	pgp openpgp.EntityList
}

type ageKey struct {
	recipient string
	identity  age.Identity
}

// Read reads the files. An error names the file, and never shows what is in it.
func (k KeyFiles) Read() (Keys, error) {
	var keys Keys
	for _, name := range k.Age {
		text, err := os.ReadFile(name)
		if err == nil {
			err = keys.addAge(name, text)
		}
		if err != nil {
			return Keys{}, err
		}
	}
	for _, name := range k.PGP {
		text, err := os.ReadFile(name)
		if err == nil {
			err = keys.addPGP(name, text)
		}
		if err != nil {
			return Keys{}, err
		}
	}
	return keys, nil
}

func (k *Keys) addAge(name string, text []byte) error {
	before, number := len(k.age), 0
	for line := range strings.Lines(string(text)) {
		number++
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		if x25519, err := age.ParseX25519Identity(line); err == nil {
			k.age = append(k.age, ageKey{x25519.Recipient().String(), x25519})
		} else if hybrid, err := age.ParseHybridIdentity(line); err == nil {
			k.age = append(k.age, ageKey{hybrid.Recipient().String(), hybrid})
		} else {
			return fmt.Errorf("%s:%d: not a private key of age; such a line begins with AGE-SECRET-KEY-1, and age-keygen makes one", name, number)
		}
	}
	if len(k.age) == before {
		return fmt.Errorf("%s holds no private key of age; age-keygen makes one", name)
	}
	return nil
}

func (k *Keys) addPGP(name string, text []byte) error {
	read := openpgp.ReadKeyRing
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte("-----BEGIN")) {
		read = openpgp.ReadArmoredKeyRing
	}
	entities, err := read(bytes.NewReader(text))
	if err != nil || len(entities) == 0 {
		return fmt.Errorf("%s holds no PGP key; gpg --export-secret-keys FINGERPRINT makes such a file", name)
	}
	for _, e := range entities {
		private := e.PrivateKey != nil
		locked := private && e.PrivateKey.Encrypted
		for _, sub := range e.Subkeys {
			private = private || sub.PrivateKey != nil
			locked = locked || sub.PrivateKey != nil && sub.PrivateKey.Encrypted
		}
		switch {
		case !private:
			return fmt.Errorf("%s: PGP key %s is a public one; export the private one: gpg --export-secret-keys %[2]s", name, fingerprint(e))
		case locked:
			return fmt.Errorf("%s: PGP key %s is protected with a passphrase, and nobody is there to type it; take it off (gpg --edit-key %[2]s passwd), or use a key of its own, and export it again", name, fingerprint(e))
		}
	}
	k.pgp = append(k.pgp, entities...)
	return nil
}

func fingerprint(e *openpgp.Entity) string {
	return strings.ToUpper(hex.EncodeToString(e.PrimaryKey.Fingerprint))
}

// String lists the keys by what is public of them.
func (k Keys) String() string {
	var all []string
	for _, a := range k.age {
		all = append(all, a.recipient)
	}
	for _, e := range k.pgp {
		all = append(all, "PGP "+fingerprint(e))
	}
	return strings.Join(all, ", ")
}

// MissingKey says that a file cannot be opened with the keys at hand: with others it could be, and nothing in it has to change.
type MissingKey struct{ text string }

func (m *MissingKey) Error() string { return m.text }

// Limits of the work with private keys that one file can ask for: each try costs milliseconds.
const (
	maxMessage = 16 << 10 // bytes of the data key as it is encrypted for one recipient; the longest that SOPS writes have 4,000
	maxPackets = 8        // keys in one PGP message; SOPS writes one
	maxTries   = 10       // recipients of whom there are keys
)

// dataKey opens the key that a file's values are encrypted with.
func (f *File) dataKey(keys Keys) ([]byte, error) {
	var failed error
	tries := 0
	tried := func(enc string) error {
		if tries++; tries > maxTries {
			return fmt.Errorf("its data key cannot be opened with any of the first %d of its recipients of whom there are keys; encrypt the file again", maxTries)
		}
		if len(enc) > maxMessage {
			return fmt.Errorf("its data key, encrypted for one recipient, has %d bytes, where SOPS writes fewer than %d; encrypt the file again", len(enc), maxMessage)
		}
		return nil
	}
	for _, r := range f.meta.Age {
		for _, k := range keys.age {
			if k.recipient != r.Recipient {
				continue
			}
			if err := tried(r.Enc); err != nil {
				return nil, err
			}
			key, err := openAge(r.Enc, k.identity)
			if err == nil {
				return key, nil
			}
			failed = fmt.Errorf("its data key cannot be opened with %s, for whom it should be encrypted; encrypt the file again", k.recipient)
		}
	}
	for _, r := range f.meta.PGP {
		if !slices.ContainsFunc(keys.pgp, func(e *openpgp.Entity) bool { return has(e, r.Fingerprint) }) {
			continue
		}
		if err := tried(r.Enc); err != nil {
			return nil, err
		}
		key, err := openPGP(r.Enc, keys.pgp)
		if err == nil || errors.Is(err, errPackets) {
			return key, err
		}
		failed = fmt.Errorf("its data key cannot be opened with PGP %s, for whom it should be encrypted; encrypt the file again", clipped(r.Fingerprint))
	}
	if failed != nil {
		return nil, failed
	}
	if have := keys.String(); have != "" {
		return nil, &MissingKey{fmt.Sprintf("it is encrypted with SOPS for %s; there are keys of %s: encrypt it for one of these, too (sops rotate --add-age, sops updatekeys), or add a key to sops in the controller's configuration", f.meta.recipients, have)}
	}
	return nil, &MissingKey{fmt.Sprintf("it is encrypted with SOPS for %s, and there is no key for this repository; name a file with one under sops in the controller's configuration", f.meta.recipients)}
}

// has reports whether a fingerprint, or the end of one, is that of a key or of one of its subkeys.
func has(e *openpgp.Entity, said string) bool {
	const shortest = 16 // 64 bits, as a key's id has
	said = strings.ToUpper(strings.TrimPrefix(strings.ReplaceAll(said, " ", ""), "0x"))
	if len(said) < shortest {
		return false
	}
	if strings.HasSuffix(fingerprint(e), said) {
		return true
	}
	return slices.ContainsFunc(e.Subkeys, func(s openpgp.Subkey) bool {
		return strings.HasSuffix(strings.ToUpper(hex.EncodeToString(s.PublicKey.Fingerprint)), said)
	})
}

// keySize is that of a data key: for AES-256.
const keySize = 32

func openAge(text string, identity age.Identity) ([]byte, error) {
	plain, err := age.Decrypt(armor.NewReader(strings.NewReader(text)), identity)
	if err != nil {
		return nil, err
	}
	return readKey(plain)
}

var errPackets = fmt.Errorf("its data key is encrypted more than %d times in one PGP message, where SOPS does it once; encrypt the file again", maxPackets)

func openPGP(text string, keys openpgp.EntityList) ([]byte, error) {
	block, err := armored.Decode(strings.NewReader(text))
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(block.Body)
	if err != nil {
		return nil, err
	}
	if encryptedKeys(body) > maxPackets {
		return nil, errPackets
	}
	message, err := openpgp.ReadMessage(bytes.NewReader(body), keys, nil, nil)
	if err != nil {
		return nil, err
	}
	return readKey(message.UnverifiedBody)
}

// encryptedKeys is how many keys, each to be tried, stand before what a PGP message encrypts.
func encryptedKeys(message []byte) (count int) {
	for packets := packet.NewReader(bytes.NewReader(message)); ; {
		p, err := packets.Next()
		if err != nil {
			return count
		}
		switch p.(type) {
		case *packet.EncryptedKey:
			count++
		case packet.EncryptedDataPacket:
			return count
		}
	}
}

// readKey reads to the end of a message: only there it has proved to be whole.
func readKey(r io.Reader) ([]byte, error) {
	key, err := io.ReadAll(io.LimitReader(r, 10*keySize))
	if err == nil && len(key) != keySize {
		err = errors.New("no key of 32 bytes")
	}
	return key, err
}
