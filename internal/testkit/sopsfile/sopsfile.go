// Package sopsfile encrypts files as SOPS does, with age, for tests whose values are made while they run. That what it writes is what SOPS writes is known by the
// reader, which is proved against files of the original.
package sopsfile

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"
	"go.yaml.in/yaml/v3"
)

// Key is a pair of keys of age.
type Key struct {
	File     string // with the private key
	identity *age.X25519Identity
}

// NewKey makes a key and its file.
func NewKey(t testing.TB) Key {
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	k := Key{filepath.Join(t.TempDir(), "age.txt"), identity}
	if err := os.WriteFile(k.File, []byte("# of a test\n"+identity.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return k
}

// Recipient is the public key.
func (k Key) Recipient() string { return k.identity.Recipient().String() }

// modified is when the files say that they were encrypted.
const modified = "2026-01-02T03:04:05Z"

type encryption struct {
	block    cipher.Block
	enc      string // the data key, encrypted
	all      bytes.Buffer
	includes *regexp.Regexp
}

func (k Key) begin(t testing.TB, includes string) *encryption {
	t.Helper()
	key := make([]byte, 32)
	rand.Read(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	armored := armor.NewWriter(&out)
	in, err := age.Encrypt(armored, k.identity.Recipient())
	if err == nil {
		_, err = in.Write(key)
	}
	for _, w := range []io.Closer{in, armored} {
		if err == nil {
			err = w.Close()
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return &encryption{block: block, enc: out.String(), includes: regexp.MustCompile(includes)}
}

func (e *encryption) seal(plain, place string) string {
	iv := make([]byte, 32)
	rand.Read(iv)
	gcm, err := cipher.NewGCMWithNonceSize(e.block, len(iv))
	if err != nil {
		panic(err) // the size is ours
	}
	out := gcm.Seal(nil, iv, []byte(plain), []byte(place))
	data, tag := out[:len(out)-gcm.Overhead()], out[len(out)-gcm.Overhead():]
	text := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("ENC[AES256_GCM,data:%s,iv:%s,tag:%s,type:str]", text(data), text(iv), text(tag))
}

// value takes a text into the MAC, and encrypts it where the rule says so.
func (e *encryption) value(plain string, path []string) string {
	e.all.WriteString(plain)
	for _, key := range path {
		if e.includes.MatchString(key) && plain != "" {
			return e.seal(plain, strings.Join(path, ":")+":")
		}
	}
	return plain
}

func (e *encryption) mac() string {
	return e.seal(fmt.Sprintf("%X", sha512.Sum512(e.all.Bytes())), modified)
}

// YAML encrypts the texts of a document below keys that a pattern matches.
func (k Key) YAML(t testing.TB, document, includes string) string {
	t.Helper()
	var root yaml.Node
	if err := yaml.Unmarshal([]byte(document), &root); err != nil {
		t.Fatal(err)
	}
	e := k.begin(t, includes)
	var walk func(n *yaml.Node, path []string)
	walk = func(n *yaml.Node, path []string) {
		n.Style &^= yaml.FlowStyle
		switch n.Kind {
		case yaml.MappingNode:
			for i := 0; i < len(n.Content); i += 2 {
				walk(n.Content[i+1], append(path, n.Content[i].Value))
			}
		case yaml.SequenceNode:
			for _, inner := range n.Content {
				walk(inner, path)
			}
		default:
			if text := e.value(n.Value, path); text != n.Value {
				n.SetString(text)
			}
		}
	}
	walk(root.Content[0], nil)
	text, err := yaml.Marshal(&root)
	if err != nil {
		t.Fatal(err)
	}
	metadata, err := yaml.Marshal(map[string]any{"sops": e.metadata(k)})
	if err != nil {
		t.Fatal(err)
	}
	return string(text) + string(metadata)
}

// Whole encrypts a file of any content.
func (k Key) Whole(t testing.TB, content string) string {
	t.Helper()
	e := k.begin(t, "")
	data := e.value(content, []string{"data"})
	text, err := json.MarshalIndent(map[string]any{"data": data, "sops": e.metadata(k)}, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// JSON encrypts the texts of an object without others inside, in the order in which they are given.
func (k Key) JSON(t testing.TB, keysAndValues ...string) string {
	t.Helper()
	e := k.begin(t, "")
	out := "{"
	for i := 0; i < len(keysAndValues); i += 2 {
		out += fmt.Sprintf("\n\t%q: %q,", keysAndValues[i], e.value(keysAndValues[i+1], keysAndValues[i:i+1]))
	}
	metadata, err := json.Marshal(e.metadata(k))
	if err != nil {
		t.Fatal(err)
	}
	return out + "\n\t\"sops\": " + string(metadata) + "\n}"
}

// Dotenv encrypts lines of NAME=VALUE.
func (k Key) Dotenv(t testing.TB, lines ...string) string {
	t.Helper()
	e := k.begin(t, "")
	var out strings.Builder
	for _, line := range lines {
		name, value, _ := strings.Cut(line, "=")
		fmt.Fprintf(&out, "%s=%s\n", name, e.value(value, []string{name}))
	}
	fmt.Fprintf(&out, "sops_age__list_0__map_enc=%s\nsops_age__list_0__map_recipient=%s\nsops_lastmodified=%s\nsops_mac=%s\nsops_encrypted_regex=.\nsops_version=3.13.3\n",
		strings.ReplaceAll(e.enc, "\n", `\n`), k.Recipient(), modified, e.mac())
	return out.String()
}

func (e *encryption) metadata(k Key) map[string]any {
	rule := e.includes.String()
	if rule == "" {
		rule = "."
	}
	return map[string]any{"age": []any{map[string]string{"recipient": k.Recipient(), "enc": e.enc}}, "lastmodified": modified, "mac": e.mac(), "encrypted_regex": rule, "version": "3.13.3"}
}
