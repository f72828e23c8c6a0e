package sops

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Opened is what a file holds.
type Opened struct {
	Values map[string]string // placeholder → what stands there in the decrypted file
	Text   []byte            // the decrypted file
}

// Open decrypts a file, after all of it proved to be what was encrypted. An error is a sentence with the file's name, and has nothing of the content; it is a
// *MissingKey where other keys would do.
func (f *File) Open(keys Keys) (*Opened, error) {
	opened, err := f.open(keys)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.name, err)
	}
	return opened, nil
}

func (f *File) open(keys Keys) (*Opened, error) {
	key, err := f.dataKey(keys)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	plain, sum, err := f.decrypt(block)
	if err != nil {
		return nil, err
	}
	modified, err := f.meta.modified()
	if err != nil {
		return nil, err
	}
	mac, err := decrypted(block, f.meta.MAC, modified)
	if err != nil {
		return nil, errors.New("its MAC cannot be decrypted: the SOPS metadata was changed by hand; encrypt it again")
	}
	if mac != sum {
		return nil, errors.New("its MAC does not match its values: something was added, removed, moved or changed since it was encrypted; encrypt it again (sops edit)")
	}
	opened := &Opened{Values: map[string]string{}}
	for i, l := range f.leaves {
		if text, ok := l.encrypted(); ok && l.at.to > 0 {
			if f.format != formatBinary && !utf8.ValidString(written(plain[i])) {
				return nil, fmt.Errorf("%s is no UTF-8 text, which a %s file cannot hold; encrypt it as a file of its own", l.key(), f.format)
			}
			opened.Values[placeholder(f.name, text)] = f.shown(plain[i])
		}
	}
	opened.Text = f.with(func(i int, _ leaf) string { return f.written(plain[i]) })
	return opened, nil
}

// commentary is a value that was a comment.
type commentary string

// decrypt decrypts the leaves, and sums up what SOPS sums up for the MAC.
func (f *File) decrypt(block cipher.Block) (plain []any, sum string, err error) {
	all := sha512.New()
	if f.meta.MACOnlyEncrypted {
		all.Write(onlyEncrypted)
	}
	plain = make([]any, len(f.leaves))
	for i, l := range f.leaves {
		encrypted := l.ruled
		if plain[i] = l.value; l.comment {
			plain[i] = commentary(l.value.(string))
		}
		if encrypted {
			text, ok := l.value.(string)
			if !ok {
				return nil, "", fmt.Errorf("%s should be encrypted, and is not; encrypt the file again", l.key())
			}
			value, err := decrypted(block, text, strings.Join(l.path, ":")+":")
			switch {
			case err == nil:
				plain[i] = value
			case l.comment: // older versions of SOPS left comments as they are
			default:
				return nil, "", fmt.Errorf("%s %w", l.key(), err)
			}
		} else if l.at.to > 0 {
			return nil, "", fmt.Errorf("%s is encrypted, and by the rules of its SOPS metadata should not be; encrypt the file again", l.key())
		}
		if _, comment := plain[i].(commentary); !comment && (encrypted || !f.meta.MACOnlyEncrypted) {
			all.Write([]byte(summed(plain[i])))
		}
	}
	return plain, strings.ToUpper(fmt.Sprintf("%x", all.Sum(nil))), nil
}

// onlyEncrypted begins the sum of a file whose MAC covers encrypted values only: the SHA-256 of "sops".
var onlyEncrypted = []byte{
	0x8a, 0x3f, 0xd2, 0xad, 0x54, 0xce, 0x66, 0x52, 0x7b, 0x10, 0x34, 0xf3, 0xd1, 0x47, 0xbe, 0x0b,
	0x0b, 0x97, 0x5b, 0x3b, 0xf4, 0x4f, 0x72, 0xc6, 0xfd, 0xad, 0xec, 0x81, 0x76, 0xf2, 0x7d, 0x69,
}

var sealed = regexp.MustCompile(`^ENC\[AES256_GCM,data:([A-Za-z0-9+/=]+),iv:([A-Za-z0-9+/=]+),tag:([A-Za-z0-9+/=]+),type:([a-z0-9]+)\]$`)

// decrypted opens one value, which is bound to its place. An error continues a sentence that begins with what it is of.
func decrypted(block cipher.Block, text, place string) (any, error) {
	if text == "" {
		return "", nil // SOPS leaves what is empty as it is
	}
	parts := sealed.FindStringSubmatch(text)
	if parts == nil {
		return nil, errors.New("should be encrypted, and is not as SOPS writes it; encrypt the file again")
	}
	var data, iv, tag []byte
	for i, into := range []*[]byte{&data, &iv, &tag} {
		var err error
		if *into, err = base64.StdEncoding.DecodeString(parts[i+1]); err != nil {
			return nil, errors.New("is encrypted, and not as SOPS writes it; encrypt the file again")
		}
	}
	gcm, err := cipher.NewGCMWithNonceSize(block, len(iv))
	if err != nil || len(tag) != gcm.Overhead() {
		return nil, errors.New("is encrypted, and not as SOPS writes it; encrypt the file again")
	}
	plain, err := gcm.Open(nil, iv, append(data, tag...), []byte(place))
	if err != nil {
		return nil, errors.New("cannot be decrypted: the value was changed, moved here from another key, or belongs to another file; encrypt the file again")
	}
	value, err := typed(string(plain), parts[4])
	if err != nil {
		return nil, fmt.Errorf("is no %s, as its type says; encrypt the file again", parts[4]) // err would show the value
	}
	return value, nil
}

func typed(text, kind string) (any, error) {
	switch kind {
	case "str", "bytes":
		return text, nil
	case "comment":
		return commentary(text), nil
	case "int", "int64":
		return strconv.Atoi(text)
	case "float":
		return strconv.ParseFloat(text, 64)
	case "bool":
		return strconv.ParseBool(text)
	case "time":
		var at time.Time
		err := at.UnmarshalText([]byte(text))
		return at, err
	}
	return nil, errors.New("unknown type")
}

// summed is a value as it goes into the MAC.
func summed(value any) string {
	switch v := value.(type) {
	case bool:
		if v {
			return "True"
		}
		return "False"
	case time.Time:
		text, err := v.MarshalText()
		if err != nil {
			return "" // a year of five digits, which SOPS does not encrypt either
		}
		return string(text)
	}
	return written(value)
}

// written is a value as text.
func written(value any) string {
	switch v := value.(type) {
	case string:
		return v
	case commentary:
		return string(v)
	case int:
		return strconv.Itoa(v)
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case bool:
		return strconv.FormatBool(v)
	case time.Time:
		return v.Format(time.RFC3339Nano)
	}
	panic(fmt.Sprintf("sops: a value of type %T that nothing reads", value))
}

// shown is a value as who reads the decrypted file has it.
func (f *File) shown(value any) string {
	if f.format == formatDotenv { // what reads such files leaves the sign for a line's end as it is
		return f.written(value)
	}
	return written(value)
}

// written is a value as the file writes it.
func (f *File) written(value any) string {
	text := written(value)
	switch f.format {
	case formatBinary:
		return text
	case formatDotenv:
		return strings.ReplaceAll(text, "\n", `\n`)
	}
	switch value.(type) {
	case int, float64, bool:
		return text
	case time.Time:
		if f.format == formatYAML {
			return text
		}
	}
	quoted, err := json.Marshal(text) // YAML reads what JSON quotes
	if err != nil {
		panic(err) // it is a string
	}
	return string(quoted)
}
