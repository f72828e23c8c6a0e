// Package sops reads files that are encrypted with SOPS (getsops.io): YAML, JSON, dotenv and whole ("binary") files. It shows them with a placeholder for each
// encrypted value, for which no key is needed, and opens them with age and PGP keys, after all of the file has proved to be what was encrypted.
package sops

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// File is an encrypted file. It does not change, and may be used concurrently.
type File struct {
	name   string
	text   []byte
	format format
	meta   metadata
	rules  rules
	leaves []leaf
	cuts   []span // what holds the metadata
}

// Limits of one file.
const (
	maxLeaves     = 10_000 // values and comments
	maxDepth      = 100
	maxPath       = 2000 // bytes of the keys that lead to a value
	maxRecipients = 100
)

type format string

const (
	formatYAML   format = "YAML"
	formatJSON   format = "JSON"
	formatDotenv format = "dotenv"
	formatBinary format = "binary" // a whole file in the data of a JSON object
)

// span is a part of a file's text, in bytes.
type span struct{ from, to int }

// leaf is a value or a comment, in the order in which SOPS goes through them.
type leaf struct {
	path      []string // keys that lead to it; elements of lists have that of the list
	comment   bool
	commented bool // a comment before it, at any level of the tree around it, is one that the rules ask for
	ruled     bool // the file's rules say that it is encrypted
	value     any  // string, int, float64, bool, time.Time
	at        span // of its text, where that is one encrypted value
}

// key is the leaf's path for people: "db.password".
func (l leaf) key() string { return strings.Join(l.path, ".") }

// Sealed begins each value that is encrypted.
const Sealed = "ENC[AES256_GCM,"

var (
	encrypted = []byte(Sealed)
	iniHead   = regexp.MustCompile(`(?m)^\[sops\]\s*$`)
	envMAC    = regexp.MustCompile(`(?m)^sops_mac=`)
	yamlSOPS  = regexp.MustCompile(`(?m)^sops:`)
)

// Read reads an encrypted file; nil when the text is none. An error is a sentence for the file's author, with its name.
func Read(name string, text []byte) (*File, error) {
	if !bytes.Contains(text, encrypted) {
		return nil, nil
	}
	f := &File{name: name, text: text}
	var err error
	switch {
	case bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")):
		f.format = formatJSON
		err = f.readJSON()
	case iniHead.Match(text):
		err = errors.New("it is an INI file that is encrypted with SOPS; that is not supported: encrypt it as a whole (sops encrypt --input-type binary), or as YAML, JSON or dotenv")
	case envMAC.Match(text):
		f.format = formatDotenv
		err = f.readDotenv()
	case yamlSOPS.Match(text):
		f.format = formatYAML
		err = f.readYAML()
	default:
		return nil, nil
	}
	if errors.Is(err, errNone) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return f, nil
}

// errNone says that a file has no metadata of SOPS: it only looked like an encrypted one.
var errNone = errors.New("not encrypted with SOPS")

// begin is called with the metadata read, and before leaves are.
func (f *File) begin() error {
	if err := f.meta.check(); err != nil {
		return err
	}
	var err error
	f.rules, err = f.meta.rules()
	return err
}

// add takes a leaf in, under the file's limits.
func (f *File) add(l leaf) error {
	if len(f.leaves) == maxLeaves {
		return fmt.Errorf("more than %d values and comments in a file that is encrypted with SOPS; split it", maxLeaves)
	}
	length := 0
	for _, key := range l.path {
		length += len(key)
	}
	if len(l.path) > maxDepth || length > maxPath {
		return fmt.Errorf("a value that is more than %d deep in a file that is encrypted with SOPS, or whose keys have more than %d bytes; it begins with %q", maxDepth, maxPath, clipped(l.path[0]))
	}
	l.path, l.ruled = slices.Clone(l.path), f.rules.encrypted(l)
	if *f.rules.steps < 0 {
		return errors.New("the regular expression in the SOPS metadata takes too long for what the file holds; write a shorter one (encrypted_regex: ^(data|stringData)$)")
	}
	f.leaves = append(f.leaves, l)
	return nil
}

// Prefix begins each placeholder. All of a placeholder is letters and digits, and its length a multiple of four: YAML, JSON, dotenv, addresses and base64 take it
// as it is.
const Prefix = "TowpathSopsValue"

// Placeholder finds placeholders in a text.
var Placeholder = regexp.MustCompile(Prefix + "[0-9a-f]{32}")

// placeholder stands for an encrypted value of a file. It is made of what everybody who reads the repository sees, so that it is the same with and without keys,
// and another one once the value is encrypted anew.
func placeholder(file, encrypted string) string {
	sum := sha256.Sum256([]byte("sops\x00" + file + "\x00" + encrypted))
	return Prefix + hex.EncodeToString(sum[:16])
}

// Value is one encrypted value of a file.
type Value struct {
	Placeholder string
	File, Key   string
}

// Values lists the file's encrypted values.
func (f *File) Values() []Value {
	var values []Value
	for _, l := range f.leaves {
		if text, ok := l.encrypted(); ok && l.at.to > 0 {
			values = append(values, Value{placeholder(f.name, text), f.name, l.key()})
		}
	}
	return values
}

// encrypted is the leaf's text where it is an encrypted value.
func (l leaf) encrypted() (string, bool) {
	text, ok := l.value.(string)
	return text, ok && strings.HasPrefix(text, string(encrypted))
}

// Masked is the file with a placeholder in place of each encrypted value, and without the metadata. Lines before the metadata stay where they are.
func (f *File) Masked() []byte {
	return f.with(func(_ int, l leaf) string {
		text, _ := l.encrypted()
		return f.written(placeholder(f.name, text))
	})
}

// with is the file's text with encrypted values replaced, and without the metadata.
func (f *File) with(value func(i int, l leaf) string) []byte {
	type edit struct {
		span
		text string
	}
	var edits []edit
	for i, l := range f.leaves {
		if l.at.to == 0 {
			continue
		}
		if f.format == formatBinary {
			return []byte(value(i, l))
		}
		edits = append(edits, edit{l.at, value(i, l)})
	}
	for _, cut := range f.cuts {
		edits = append(edits, edit{cut, ""})
	}
	slices.SortFunc(edits, func(a, b edit) int { return a.from - b.from })
	var out []byte
	at := 0
	for _, e := range edits {
		out = append(append(out, f.text[at:e.from]...), e.text...)
		at = e.to
	}
	return append(out, f.text[at:]...)
}

// extension is the end of the file's name, in small letters.
func (f *File) extension() string { return strings.ToLower(path.Ext(f.name)) }
