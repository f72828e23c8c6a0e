package sops

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"time"
)

// metadata is what SOPS keeps in a file about its encryption.
type metadata struct {
	recipients `yaml:",inline"`

	KeyGroups        []recipients `yaml:"key_groups" json:"key_groups"`
	LastModified     string       `yaml:"lastmodified" json:"lastmodified"`
	MAC              string       `yaml:"mac" json:"mac"`
	MACOnlyEncrypted bool         `yaml:"mac_only_encrypted" json:"mac_only_encrypted"`

	UnencryptedSuffix       string `yaml:"unencrypted_suffix" json:"unencrypted_suffix"`
	EncryptedSuffix         string `yaml:"encrypted_suffix" json:"encrypted_suffix"`
	UnencryptedRegex        string `yaml:"unencrypted_regex" json:"unencrypted_regex"`
	EncryptedRegex          string `yaml:"encrypted_regex" json:"encrypted_regex"`
	UnencryptedCommentRegex string `yaml:"unencrypted_comment_regex" json:"unencrypted_comment_regex"`
	EncryptedCommentRegex   string `yaml:"encrypted_comment_regex" json:"encrypted_comment_regex"`
}

// recipients are those for whom the data key is encrypted.
type recipients struct {
	Age []ageRecipient `yaml:"age" json:"age"`
	PGP []pgpRecipient `yaml:"pgp" json:"pgp"`

	// What only services can open.
	KMS    []map[string]any `yaml:"kms" json:"kms"`
	GCPKMS []map[string]any `yaml:"gcp_kms" json:"gcp_kms"`
	HCKMS  []map[string]any `yaml:"hckms" json:"hckms"`
	Azure  []map[string]any `yaml:"azure_kv" json:"azure_kv"`
	Vault  []map[string]any `yaml:"hc_vault" json:"hc_vault"`
}

type ageRecipient struct {
	Recipient string `yaml:"recipient" json:"recipient"`
	Enc       string `yaml:"enc" json:"enc"`
}

type pgpRecipient struct {
	Fingerprint string `yaml:"fp" json:"fp"`
	Enc         string `yaml:"enc" json:"enc"`
}

func (r recipients) count() int {
	return len(r.Age) + len(r.PGP) + len(r.KMS) + len(r.GCPKMS) + len(r.HCKMS) + len(r.Azure) + len(r.Vault)
}

// String lists the recipients for people.
func (r recipients) String() string {
	var all []string
	for _, a := range r.Age {
		all = append(all, clipped(a.Recipient))
	}
	for _, p := range r.PGP {
		all = append(all, "PGP "+clipped(p.Fingerprint))
	}
	for _, service := range []struct {
		name string
		keys []map[string]any
	}{{"AWS KMS", r.KMS}, {"Google Cloud KMS", r.GCPKMS}, {"Huawei Cloud KMS", r.HCKMS}, {"Azure Key Vault", r.Azure}, {"HashiCorp Vault", r.Vault}} {
		if len(service.keys) > 0 {
			all = append(all, service.name)
		}
	}
	const shown = 10
	if len(all) > shown {
		all = append(all[:shown], fmt.Sprintf("%d more", len(all)-shown))
	}
	return strings.Join(all, ", ")
}

// clipped is a file's word as it may stand in a message.
func clipped(word string) string {
	const longest = 100
	if len(word) > longest {
		word = strings.ToValidUTF8(word[:longest], "") + "…"
	}
	return word
}

// check refuses what no file of SOPS has, and what is not supported. A single group of keys is taken as the recipients themselves.
func (m *metadata) check() error {
	if m.count() == 0 && len(m.KeyGroups) == 1 {
		m.recipients = m.KeyGroups[0]
		m.KeyGroups = nil
	}
	switch {
	case m.MAC == "":
		return errors.New("its SOPS metadata has no mac; encrypt it again")
	case len(m.KeyGroups) > 0 && m.count() == 0:
		return errors.New("its data key is divided among key_groups (Shamir's secret sharing), which is not supported: encrypt it for one group")
	case m.count() == 0:
		return errors.New("its SOPS metadata names no recipients; encrypt it again")
	case m.count() > maxRecipients:
		return fmt.Errorf("it is encrypted for %d recipients; at most %d are taken", m.count(), maxRecipients)
	}
	if _, err := m.modified(); err != nil {
		return errors.New("lastmodified of its SOPS metadata is no time; encrypt it again")
	}
	return nil
}

// modified is lastmodified as SOPS writes it where it binds the MAC to it.
func (m *metadata) modified() (string, error) {
	at, err := time.Parse(time.RFC3339, m.LastModified)
	return at.Format(time.RFC3339), err
}

// rules say which values of a file are encrypted.
type rules struct {
	unencryptedSuffix, encryptedSuffix                                       string
	unencryptedKeys, encryptedKeys, unencryptedByComment, encryptedByComment *pattern

	steps *int // that its expressions may still take; below 0 nothing matches any more
}

// maxSteps is how many steps the regular expressions of a file may take together: its author writes both them and what they are held against.
const maxSteps = 50_000_000

// pattern is a regular expression whose steps are counted: at most as many for each letter as it has instructions.
type pattern struct {
	*regexp.Regexp
	size  int
	steps *int
}

func newPattern(text string, steps *int) (*pattern, error) {
	parsed, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return nil, err
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, err
	}
	compiled, err := regexp.Compile(text)
	return &pattern{compiled, len(program.Inst), steps}, err
}

func (p *pattern) matches(text string) bool {
	*p.steps -= p.size * (len(text) + 1)
	return *p.steps >= 0 && p.MatchString(text)
}

func (m *metadata) rules() (r rules, err error) {
	r.steps = new(int)
	*r.steps = maxSteps
	r.unencryptedSuffix, r.encryptedSuffix = m.UnencryptedSuffix, m.EncryptedSuffix
	said := 0
	for _, suffix := range []string{m.UnencryptedSuffix, m.EncryptedSuffix} {
		if suffix != "" {
			said++
		}
	}
	for _, of := range []struct {
		field, text string
		into        **pattern
	}{
		{"unencrypted_regex", m.UnencryptedRegex, &r.unencryptedKeys}, {"encrypted_regex", m.EncryptedRegex, &r.encryptedKeys},
		{"unencrypted_comment_regex", m.UnencryptedCommentRegex, &r.unencryptedByComment}, {"encrypted_comment_regex", m.EncryptedCommentRegex, &r.encryptedByComment},
	} {
		if of.text == "" {
			continue
		}
		said++
		if len(of.text) <= 1000 {
			*of.into, err = newPattern(of.text, r.steps)
		}
		if err != nil || len(of.text) > 1000 {
			return r, fmt.Errorf("%s of its SOPS metadata is no regular expression of at most 1000 characters", of.field)
		}
	}
	if said > 1 {
		return r, errors.New("its SOPS metadata has more than one of unencrypted_suffix, encrypted_suffix, unencrypted_regex, encrypted_regex, unencrypted_comment_regex, encrypted_comment_regex")
	}
	if said == 0 {
		r.unencryptedSuffix = "_unencrypted"
	}
	return r, nil
}

// encrypted reports whether a leaf is encrypted.
func (r rules) encrypted(l leaf) bool {
	suffixed := func(suffix string) bool {
		return slices.ContainsFunc(l.path, func(key string) bool { return strings.HasSuffix(key, suffix) })
	}
	switch {
	case r.unencryptedSuffix != "":
		return !suffixed(r.unencryptedSuffix)
	case r.encryptedSuffix != "":
		return suffixed(r.encryptedSuffix)
	case r.unencryptedKeys != nil:
		return !slices.ContainsFunc(l.path, r.unencryptedKeys.matches)
	case r.encryptedKeys != nil:
		return slices.ContainsFunc(l.path, r.encryptedKeys.matches)
	case r.unencryptedByComment != nil:
		return !l.commented
	}
	return l.commented
}

// levels are, for each level of the tree around what is read next, whether a comment before it is one that the rules ask for.
type levels []bool

// value is a value as it stands below comments; those of its level count for it alone.
func (s levels) value(l leaf) leaf {
	l.commented = slices.Contains(s, true)
	s[len(s)-1] = false
	return l
}

// comment is a comment as a leaf: where comments have values encrypted, the one that says so is not encrypted itself.
func (s levels) comment(r rules, path []string, said string) leaf {
	l := leaf{path: path, comment: true, value: said, commented: slices.Contains(s, true)}
	by := r.encryptedByComment
	if r.unencryptedByComment != nil {
		by = r.unencryptedByComment
	}
	if by != nil && by.matches(said) {
		s[len(s)-1] = true
		l.commented = l.commented || r.unencryptedByComment != nil
	}
	return l
}
