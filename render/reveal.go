package render

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"towpath/manifest"
	"towpath/render/sops"
)

// A worker gets a file that is encrypted with SOPS with placeholders in place of its values. What it makes of them is done here: in Secrets they become the values,
// and anywhere else they are refused.

// reveal puts decrypted values into the Secrets of a result, or only looks where they would go when the request has no keys.
func reveal(r Request, encrypted map[string]*sops.File, limits Limits, result Result) Result {
	for _, o := range result.Objects {
		if at := sealed(o); at != "" {
			result.Problems = append(result.Problems, problem(r.File, "%s, %s: the value is encrypted with SOPS, and cannot be decrypted: it is from a packed chart or an address, or its file has lost its metadata (sops)", o.Key, at))
		}
	}
	if len(encrypted) == 0 {
		return discard(result)
	}
	v := &revealing{request: r, files: encrypted, opened: map[string]*sops.Opened{}, values: map[string]sops.Value{}, wholes: map[string]whole{}, left: limits.OutputBytes}
	for _, name := range slices.Sorted(maps.Keys(encrypted)) {
		for _, value := range encrypted[name].Values() {
			v.values[value.Placeholder] = value
		}
		masked := string(encrypted[name].Masked())
		if at := sops.Placeholder.FindStringIndex(masked); at != nil {
			short := strings.TrimRight(masked, "\n")
			v.wholes[masked[at[0]:at[1]]] = whole{name, short, masked[len(short):], at[0]}
		}
	}
	v.pieces = piecesOf(v.values)
	for i, o := range result.Objects {
		revealed, err := v.object(o)
		if err != nil {
			result.Problems = append(result.Problems, problem(r.File, "%s%v", o.Key, err))
		}
		result.Objects[i] = revealed
	}
	for _, name := range slices.Sorted(maps.Keys(v.failed)) {
		result.Problems = append(result.Problems, problem(r.File, "%v", v.failed[name]))
	}
	result.Trace.Retry = result.Trace.Retry || v.retry
	if v.found {
		result.Digest = revealedDigest(r.Tenant, result.Digest)
	}
	return discard(result)
}

// discard takes the objects out of a result that has failed.
func discard(result Result) Result {
	if result.Failed() {
		result.Objects, result.Digest = nil, ""
	}
	return result
}

// sealed is where a Secret has a value that nobody decrypts; "" when it has none.
func sealed(o manifest.Object) string {
	if o.Group != "" || o.Kind != "Secret" {
		return ""
	}
	fields := o.Map()
	for _, field := range []string{"data", "stringData"} {
		texts, _ := fields[field].(map[string]any)
		for _, key := range slices.Sorted(maps.Keys(texts)) {
			if text, ok := texts[key].(string); ok && (strings.Contains(text, sops.Sealed) || inBase64(text, sops.Sealed)) {
				return field + "." + key
			}
		}
	}
	return ""
}

// revealedDigest names a set by what it was before its values were decrypted: with and without keys it has one name, and that tells nothing of the values. It is
// the name of no set of another tenant, nor of one in which somebody wrote placeholders.
func revealedDigest(tenant, masked string) string {
	sum := sha256.Sum256([]byte("sops\x00" + tenant + "\x00" + masked))
	return "sha256:" + hex.EncodeToString(sum[:])
}

type revealing struct {
	request Request
	files   map[string]*sops.File
	values  map[string]sops.Value // by placeholder
	pieces  pieces
	wholes  map[string]whole // by their first placeholder
	opened  map[string]*sops.Opened
	keys    *sops.Keys
	failed  map[string]error // why files could not be opened, by name; under "" why there are no keys
	retry   bool             // other keys would help
	found   bool             // a Secret has an encrypted value
	left    int64            // bytes that may be put in
}

// whole is a file as a worker sees it: what takes it in as it is, such as a secretGenerator, gets the decrypted file.
type whole struct {
	name, masked string
	end          string // ends of lines after it, which a template may have taken away
	first        int    // where its first placeholder stands
}

var errUnopened = errors.New("not opened") // said once for each file

// object is an object with its values. An error goes on after the object's name.
func (v *revealing) object(o manifest.Object) (manifest.Object, error) {
	if o.Group != "" || o.Kind != "Secret" {
		if !v.mentions(string(o.JSON)) {
			return o, nil
		}
		return o, v.leak(o.Map())
	}
	fields, changed := o.Map(), false
	for _, field := range []string{"data", "stringData"} {
		texts, _ := fields[field].(map[string]any)
		for _, key := range slices.Sorted(maps.Keys(texts)) {
			before, ok := texts[key].(string)
			if !ok || v.mentions(key) {
				continue
			}
			if field == "data" {
				before = inOneLine.Replace(before)
			}
			after, err := v.text(before, 0)
			if errors.Is(err, errUnopened) {
				return o, nil
			}
			if err == nil && after.found {
				err = fits(field, after.text)
			}
			if err != nil {
				return o, fmt.Errorf(", %s.%s: %w", field, key, err)
			}
			if changed = changed || after.found; after.found {
				texts[key] = after.text
			}
		}
	}
	outside := maps.Clone(fields)
	for _, field := range []string{"data", "stringData"} {
		outside[field] = keysOf(fields[field])
	}
	if err := v.leak(outside); err != nil || !changed {
		return o, err
	}
	v.found = true
	return manifest.FromMap(fields, o.Source)
}

// inOneLine takes the ends of lines out of base64: kustomize breaks it, and who reads it passes over them.
var inOneLine = strings.NewReplacer("\n", "", "\r", "")

// fits says why a text cannot stand in a field of a Secret.
func fits(field, text string) error {
	if field == "stringData" {
		if !utf8.ValidString(text) {
			return errors.New("a decrypted value is no UTF-8 text; such a value stands in data, as a secretGenerator writes it")
		}
		return nil
	}
	if _, err := base64.StdEncoding.DecodeString(text); err != nil {
		return errors.New("a decrypted value stands in it as it is, and data holds base64: encrypt the base64 of it, or write the value under stringData")
	}
	return nil
}

// keysOf is what of a Secret's data may not be encrypted: its keys, and what is no text.
func keysOf(data any) any {
	texts, ok := data.(map[string]any)
	if !ok {
		return data
	}
	out := maps.Clone(texts)
	for key, value := range out {
		if _, text := value.(string); text {
			out[key] = ""
		}
	}
	return out
}

// mentions reports whether a text has a placeholder in it, or what a template made of one.
func (v *revealing) mentions(text string) bool {
	_, found := v.pieces.within(text, 0)
	return found
}

// leak says where in the fields of an object an encrypted value stands.
func (v *revealing) leak(fields map[string]any) error {
	at, value, found := v.seek(fields, "")
	if !found {
		return nil
	}
	return fmt.Errorf(", %s: %s stands here; what is encrypted with SOPS may stand only in data and stringData of Secrets", at, called(value))
}

// seek finds the first text that mentions a placeholder, and the field it stands in.
func (v *revealing) seek(value any, at string) (field string, of sops.Value, found bool) {
	switch value := value.(type) {
	case string:
		of, found = v.pieces.within(value, 0)
		return at, of, found
	case []any:
		for i, inner := range value {
			if field, of, found := v.seek(inner, fmt.Sprintf("%s[%d]", at, i)); found {
				return field, of, true
			}
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(value)) {
			inner := strings.TrimPrefix(at+"."+key, ".")
			if of, found := v.pieces.within(key, 0); found {
				return inner, of, true
			}
			if field, of, found := v.seek(value[key], inner); found {
				return field, of, true
			}
		}
	}
	return "", sops.Value{}, false
}

// part is a text, and whether an encrypted value was found in it.
type part struct {
	text  string
	found bool
}

// encodings is how many times a text may be encoded in base64 around a value: a Secret's data once, and a password of a registry in it a second time.
const encodings = 3

// text puts decrypted values into a text: for files that are in it as they are, for placeholders, and for those inside of what is base64 in it. What was put in is
// not looked at again.
func (v *revealing) text(in string, depth int) (part, error) {
	var out strings.Builder
	found := false
	for {
		at := sops.Placeholder.FindStringIndex(in)
		if at == nil {
			break
		}
		from, to, value := v.at(in, at[0], at[1])
		before, err := v.encoded(in[:from], depth)
		if err != nil {
			return part{}, err
		}
		plain, err := value()
		if err != nil {
			return part{}, err
		}
		if v.left -= int64(len(plain)); v.left < 0 {
			return part{}, errors.New("decrypted values make the objects larger than all that is deployed at once may be")
		}
		out.WriteString(before.text)
		out.WriteString(plain)
		in, found = in[to:], true
	}
	rest, err := v.encoded(in, depth)
	out.WriteString(rest.text)
	return part{out.String(), found || rest.found}, err
}

// at is what a placeholder at a place of a text belongs to, a file that is there as a whole or the one value, and what comes in its place.
func (v *revealing) at(in string, from, to int) (start, end int, value func() (string, error)) {
	placeholder := in[from:to]
	if w, first := v.wholes[placeholder]; first && from >= w.first && strings.HasPrefix(in[from-w.first:], w.masked) {
		start = from - w.first
		return start, start + len(w.masked), func() (string, error) { return v.whole(w) }
	}
	return from, to, func() (string, error) { return v.value(placeholder) }
}

// encoded puts values into what is base64 in a text, which has no placeholder as it is.
func (v *revealing) encoded(in string, depth int) (part, error) {
	if value, found := v.pieces.in(in); found {
		return part{}, fmt.Errorf("a template changed %s before it came here (upper, trunc, replace, …); such values can only be written as they are, or in base64", called(value))
	}
	if depth == encodings {
		return part{in, false}, nil
	}
	var out, kept strings.Builder // kept is what stays as it is
	at := 0
	for _, run := range base64Run.FindAllStringIndex(in, -1) {
		plain, encoding, err := inRun(in[run[0]:run[1]])
		if err != nil {
			continue
		}
		inner, err := v.text(plain, depth+1)
		if err != nil {
			return part{}, err
		}
		if inner.found {
			kept.WriteString(in[at:run[0]] + "\n")
			out.WriteString(in[at:run[0]])
			out.WriteString(encoding.EncodeToString([]byte(inner.text)))
			at = run[1]
		}
	}
	out.WriteString(in[at:])
	if kept.WriteString(in[at:]); inBase64(kept.String(), sops.Prefix[:beginning]) {
		return part{}, errors.New("an encrypted value stands in it in base64, directly after other letters, digits or slashes, so that it cannot be told from them; write something else before it, or encode all of the text")
	}
	return part{out.String(), at > 0}, nil
}

// inBase64 reports whether a text has another in it that was encoded in base64, wherever in what was encoded it stood: what three places in a group of three bytes
// make of it differs, but for its first and last letters.
func inBase64(text, other string) bool {
	for shift := range 3 {
		encoded := base64.StdEncoding.EncodeToString(append(make([]byte, shift), other...))
		from, to := (shift*8+5)/6, (shift+len(other))*8/6
		if strings.Contains(text, encoded[from:to]) {
			return true
		}
	}
	return false
}

// value is what a placeholder stands for.
func (v *revealing) value(placeholder string) (string, error) {
	of, known := v.values[placeholder]
	if !known {
		return "", fmt.Errorf("%s stands for an encrypted value of no file that is read here", placeholder)
	}
	opened, err := v.open(of.File)
	if opened == nil {
		return placeholder, err
	}
	return opened.Values[placeholder], nil
}

func (v *revealing) whole(w whole) (string, error) {
	opened, err := v.open(w.name)
	if opened == nil {
		return w.masked, err
	}
	return strings.TrimSuffix(string(opened.Text), w.end), nil
}

// open opens a file when its first value is needed; nil when the request has no keys for it.
func (v *revealing) open(name string) (*sops.Opened, error) {
	if v.request.Keys == nil {
		return nil, nil
	}
	if opened, done := v.opened[name]; done {
		if opened == nil {
			return nil, errUnopened
		}
		return opened, nil
	}
	v.opened[name] = nil
	if v.keys == nil && v.failed[""] == nil {
		keys, err := v.request.Keys()
		if err != nil {
			v.fail("", fmt.Errorf("a key for files that are encrypted with SOPS: %w", err), true)
		}
		v.keys = &keys
	}
	if v.failed[""] != nil {
		return nil, errUnopened
	}
	opened, err := v.files[name].Open(*v.keys)
	if err != nil {
		missing := new(sops.MissingKey)
		v.fail(name, err, errors.As(err, &missing))
		return nil, errUnopened
	}
	v.opened[name] = opened
	return opened, nil
}

func (v *revealing) fail(name string, err error, retry bool) {
	if v.failed == nil {
		v.failed = map[string]error{}
	}
	v.failed[name], v.retry = err, v.retry || retry
}
