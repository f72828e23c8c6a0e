package sops

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// readJSON reads an object: its leaves with their places in the text, and its metadata.
func (f *File) readJSON() error {
	var holder struct {
		SOPS *metadata `json:"sops"`
	}
	if err := json.Unmarshal(f.text, &holder); err != nil {
		return fmt.Errorf("it looks like a JSON file that is encrypted with SOPS, and cannot be read: %w", err)
	}
	if holder.SOPS == nil {
		return errNone
	}
	f.meta = *holder.SOPS
	if err := f.begin(); err != nil {
		return err
	}
	r := &jsonReader{File: f, decoder: json.NewDecoder(bytes.NewReader(f.text))}
	r.decoder.UseNumber()
	if _, err := r.decoder.Token(); err != nil {
		return err
	}
	if err := r.object(nil); err != nil {
		return err
	}
	if r.members == 1 && len(f.leaves) == 1 && f.leaves[0].key() == "data" && f.leaves[0].at.to > 0 && f.extension() != ".json" {
		f.format = formatBinary
	}
	return nil
}

type jsonReader struct {
	*File
	decoder *json.Decoder
	members int // of the outermost object, without the metadata
}

// before is where the value begins that is read next: after blanks and what parts values.
func (r *jsonReader) before() int {
	at := int(r.decoder.InputOffset())
	for at < len(r.text) && bytes.IndexByte([]byte(" \t\r\n:,"), r.text[at]) >= 0 {
		at++
	}
	return at
}

func (r *jsonReader) object(path []string) error {
	end := int(r.decoder.InputOffset()) // of what stands before the member
	for r.decoder.More() {
		token, err := r.decoder.Token()
		if err != nil {
			return err
		}
		key := token.(string) // the text has been read once
		if len(path) == 0 && key == "sops" {
			var skipped json.RawMessage
			if err := r.decoder.Decode(&skipped); err != nil {
				return err
			}
			r.cutMember(end)
		} else {
			if len(path) == 0 {
				r.members++
			}
			if err := r.value(append(path, key)); err != nil {
				return err
			}
		}
		end = int(r.decoder.InputOffset())
	}
	_, err := r.decoder.Token()
	return err
}

// cutMember cuts the member that was just read and one of the commas beside it.
func (r *jsonReader) cutMember(from int) {
	to := int(r.decoder.InputOffset())
	if r.text[from-1] == '{' { // the first: what follows has its comma
		for to < len(r.text) && bytes.IndexByte([]byte(" \t\r\n"), r.text[to]) >= 0 {
			to++
		}
		if to < len(r.text) && r.text[to] == ',' {
			to++
		}
	}
	r.cuts = append(r.cuts, span{from, to})
}

func (r *jsonReader) value(path []string) error {
	if len(path) > maxDepth {
		return fmt.Errorf("values more than %d deep in a file that is encrypted with SOPS", maxDepth)
	}
	from := r.before()
	token, err := r.decoder.Token()
	if err != nil {
		return err
	}
	l := leaf{path: path, value: token}
	switch token := token.(type) {
	case nil:
		return nil
	case json.Delim:
		if token == '{' {
			return r.object(path)
		}
		for r.decoder.More() {
			if err := r.value(path); err != nil {
				return err
			}
		}
		_, err := r.decoder.Token()
		return err
	case json.Number:
		if l.value, err = number(token); err != nil {
			return fmt.Errorf("%s: %w", l.key(), err)
		}
	}
	if _, ok := l.encrypted(); ok {
		l.at = span{from, int(r.decoder.InputOffset())}
	}
	return r.add(l)
}

// number is a number as SOPS reads it.
func number(n json.Number) (any, error) {
	if whole, err := n.Int64(); err == nil {
		return int(whole), nil
	}
	float, err := n.Float64()
	if err != nil {
		return nil, errors.New("a number that is too large for SOPS")
	}
	return float, nil
}
