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
	at := 0
	for line := range strings.SplitAfterSeq(string(f.text), "\n") {
		from := at
		at += len(line)
		text := strings.TrimSuffix(line, "\n")
		if text == "" {
			continue
		}
		if comment, is := strings.CutPrefix(text, "#"); is {
			if err := f.add(leaf{comment: true, value: comment}); err != nil {
				return err
			}
			continue
		}
		name, value, found := strings.Cut(text, "=")
		if !found {
			return fmt.Errorf("a line of a dotenv file that is encrypted with SOPS has no =: it begins with %q", clipped(text))
		}
		value = strings.ReplaceAll(value, `\n`, "\n")
		if field, is := strings.CutPrefix(name, "sops_"); is {
			f.cuts = append(f.cuts, span{from, at})
			if err := f.meta.set(field, value); err != nil {
				return err
			}
			continue
		}
		l := leaf{path: []string{name}, value: value}
		if _, ok := l.encrypted(); ok {
			l.at = span{from + len(name) + 1, from + len(text)}
		}
		if err := f.add(l); err != nil {
			return err
		}
	}
	if f.meta.commented() {
		f.commentLines()
	}
	return nil
}

// commentLines gives the leaves of a file of lines the comments that stand right before them.
func (f *File) commentLines() {
	var before []string
	for i := range f.leaves {
		l := &f.leaves[i]
		if l.comment {
			before = append(before, l.value.(string))
		}
		l.comments = [][]string{before[:len(before):len(before)]}
		if !l.comment {
			before = nil
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
