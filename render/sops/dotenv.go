package sops

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// recipientField is how a dotenv file has a field of one of its recipients.
var recipientField = regexp.MustCompile(`^(age|pgp|kms|gcp_kms|hckms|azure_kv|hc_vault)__list_(\d{1,3})__map_([a-z_]+)$`)

// readDotenv reads lines of NAME=VALUE; the metadata is those whose names begin with sops_.
func (f *File) readDotenv() error {
	for name, value := range f.lines {
		if field, is := strings.CutPrefix(name, "sops_"); is {
			at := value.at
			f.cuts = append(f.cuts, span{at.from - len(name) - 1, min(at.to+1, len(f.text))})
			if err := f.meta.set(field, value.text); err != nil {
				return err
			}
		}
	}
	if err := f.begin(); err != nil {
		return err
	}
	before := levels{false}
	for name, value := range f.lines {
		if strings.HasPrefix(name, "sops_") {
			continue
		}
		l := leaf{path: []string{name}, value: value.text}
		if name == "" && value.comment {
			l = before.comment(f.rules, nil, value.text)
		} else {
			if l = before.value(l); value.at.from == 0 {
				return fmt.Errorf("a line of a dotenv file that is encrypted with SOPS has no =: it begins with %q", clipped(value.text))
			}
			if _, ok := l.encrypted(); ok {
				l.at = value.at
			}
		}
		if err := f.add(l); err != nil {
			return err
		}
	}
	return nil
}

// line is a value or a comment of a dotenv file.
type line struct {
	text    string
	comment bool
	at      span // of a value
}

// lines goes through the lines of a dotenv file, with the names of values.
func (f *File) lines(yield func(name string, l line) bool) {
	at := 0
	for whole := range strings.SplitAfterSeq(string(f.text), "\n") {
		from := at
		at += len(whole)
		text := strings.TrimSuffix(whole, "\n")
		if text == "" {
			continue
		}
		name, l := "", line{text: text}
		if comment, is := strings.CutPrefix(text, "#"); is {
			l = line{text: comment, comment: true}
		} else if before, value, found := strings.Cut(text, "="); found {
			name, l = before, line{text: strings.ReplaceAll(value, `\n`, "\n"), at: span{from + len(before) + 1, from + len(text)}}
		}
		if !yield(name, l) {
			return
		}
	}
}

// set takes in one field of metadata that is written flat.
func (m *metadata) set(field, value string) error {
	switch field {
	case "mac":
		m.MAC = value
	case "lastmodified":
		m.LastModified = value
	case "mac_only_encrypted":
		m.MACOnlyEncrypted = value == "true"
	case "unencrypted_suffix":
		m.UnencryptedSuffix = value
	case "encrypted_suffix":
		m.EncryptedSuffix = value
	case "unencrypted_regex":
		m.UnencryptedRegex = value
	case "encrypted_regex":
		m.EncryptedRegex = value
	case "unencrypted_comment_regex":
		m.UnencryptedCommentRegex = value
	case "encrypted_comment_regex":
		m.EncryptedCommentRegex = value
	default:
		if strings.HasPrefix(field, "key_groups__") {
			m.KeyGroups = make([]recipients, 2) // however many: what is written flat is divided only where there are several
			return nil
		}
		if of := recipientField.FindStringSubmatch(field); of != nil {
			return m.recipients.set(of[1], of[2], of[3], value)
		}
	}
	return nil
}

// set takes in a field of one recipient.
func (r *recipients) set(kind, number, field, value string) error {
	i, err := strconv.Atoi(number)
	if err != nil || i >= maxRecipients {
		return fmt.Errorf("it is encrypted for more than %d recipients", maxRecipients)
	}
	switch kind {
	case "age":
		a := element(&r.Age, i)
		switch field {
		case "recipient":
			a.Recipient = value
		case "enc":
			a.Enc = value
		}
	case "pgp":
		p := element(&r.PGP, i)
		switch field {
		case "fp":
			p.Fingerprint = value
		case "enc":
			p.Enc = value
		}
	default:
		for name, services := range map[string]*[]map[string]any{"kms": &r.KMS, "gcp_kms": &r.GCPKMS, "hckms": &r.HCKMS, "azure_kv": &r.Azure, "hc_vault": &r.Vault} {
			if name == kind {
				element(services, i)
			}
		}
	}
	return nil
}

// element is an element of a list, which grows as needed.
func element[T any](list *[]T, i int) *T {
	if i >= len(*list) {
		*list = append(*list, make([]T, i+1-len(*list))...)
	}
	return &(*list)[i]
}
