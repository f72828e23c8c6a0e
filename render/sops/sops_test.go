package sops_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"go.yaml.in/yaml/v3"

	"towpath/render/sops"
)

// read reads what testdata/make.sh made with the original.
func read(t testing.TB, parts ...string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(append([]string{"testdata"}, parts...)...))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// all is each kind of private key.
var all = sops.KeyFiles{Age: []string{"testdata/keys/age.txt", "testdata/keys/hybrid-age.txt"}, PGP: []string{"testdata/keys/pgp.asc", "testdata/keys/pgp-curve.gpg"}}

func keys(t testing.TB, files sops.KeyFiles) sops.Keys {
	t.Helper()
	k, err := files.Read()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// file reads a file that is encrypted.
func file(t testing.TB, name string, text []byte) *sops.File {
	t.Helper()
	f, err := sops.Read(name, text)
	if err != nil || f == nil {
		t.Fatalf("%s: %v, %v", name, f, err)
	}
	return f
}

// content is what a file holds, as who reads its format has it.
func content(t *testing.T, name string, text []byte) any {
	t.Helper()
	var all []any
	switch filepath.Ext(name) {
	case ".json":
		var v any
		if err := json.Unmarshal(text, &v); err != nil {
			t.Fatalf("%s: %v in\n%s", name, err, text)
		}
		return v
	case ".yaml":
		decoder := yaml.NewDecoder(bytes.NewReader(text))
		for {
			var v any
			if decoder.Decode(&v) != nil {
				return all
			}
			all = append(all, v)
		}
	}
	return string(text)
}

func TestFilesHoldWhatTheOriginalDecrypts(t *testing.T) {
	t.Parallel()
	entries, err := os.ReadDir("testdata/decrypted")
	if err != nil || len(entries) < 20 {
		t.Fatalf("%d files, %v", len(entries), err)
	}
	for _, entry := range entries {
		name := entry.Name()
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := file(t, name, read(t, "encrypted", name))
			opened, err := f.Open(keys(t, all))
			if err != nil {
				t.Fatal(err)
			}
			want := content(t, name, read(t, "decrypted", name))
			if got := content(t, name, opened.Text); filepath.Ext(name) == ".env" {
				if line := regexp.MustCompile(`(?m)^#.*\n`); line.ReplaceAllString(got.(string), "") != line.ReplaceAllString(want.(string), "") { // who reads it passes over comments
					t.Errorf("got\n%s\nwant\n%s", got, want)
				}
			} else if !reflect.DeepEqual(got, want) {
				t.Errorf("got\n%#v\nwant\n%#v\nof\n%s", got, want, opened.Text)
			}

			masked := string(f.Masked())
			if strings.Contains(masked, "sops:") || strings.Contains(masked, "sops_") || strings.Contains(masked, `"sops"`) {
				t.Errorf("the metadata is there still:\n%s", masked)
			}
			quoted := regexp.MustCompile(`"?` + sops.Placeholder.String() + `"?`)
			if places := quoted.FindAllString(masked, -1); len(places) != len(f.Values()) || len(opened.Values) == 0 {
				t.Errorf("%d placeholders, %d values, %d of them opened", len(places), len(f.Values()), len(opened.Values))
			}
			for _, v := range f.Values() {
				if plain := opened.Values[v.Placeholder]; len(plain) > 4 && strings.Contains(masked, plain) {
					t.Errorf("%s is there in clear:\n%s", v.Key, masked)
				}
			}
			content(t, name, []byte(masked))
		})
	}
}

func TestAMaskedFileHasItsLinesWhereTheyWere(t *testing.T) {
	t.Parallel()
	f := file(t, "apps/secret.yaml", read(t, "encrypted", "some.yaml"))
	var secret struct {
		Kind     string
		Metadata struct{ Name string }
		Data     map[string]string
		Strings  map[string]string `yaml:"stringData"`
	}
	masked := f.Masked()
	if err := yaml.Unmarshal(masked, &secret); err != nil {
		t.Fatalf("%v in\n%s", err, masked)
	}
	if secret.Kind != "Secret" || secret.Metadata.Name != "database" || secret.Strings["empty"] != "" {
		t.Errorf("%+v", secret)
	}
	for _, value := range []string{secret.Data["token"], secret.Strings["user"], secret.Strings["password"]} {
		if !sops.Placeholder.MatchString(value) || len(value)%4 != 0 {
			t.Errorf("%q is no placeholder", value)
		}
	}
	if !bytes.HasPrefix(masked, []byte("# A Secret, as most have it.\napiVersion: v1\nkind: Secret\nmetadata:\n    name: database\nstringData:\n")) {
		t.Errorf("got\n%s", masked)
	}
	again := file(t, "apps/secret.yaml", read(t, "encrypted", "some.yaml")).Masked()
	elsewhere := file(t, "other/secret.yaml", read(t, "encrypted", "some.yaml")).Masked()
	if !bytes.Equal(masked, again) || bytes.Equal(masked, elsewhere) {
		t.Error("placeholders are not those of this file's values")
	}
}

func TestPlacesAreNamed(t *testing.T) {
	t.Parallel()
	var keys []string
	for _, v := range file(t, "a.json", read(t, "encrypted", "values.json")).Values() {
		keys = append(keys, v.Key)
	}
	if want := []string{"database.url", "database.pool", "database.ratio", "database.tls", "hosts", "hosts", "hosts.c"}; !slices.Equal(keys, want) {
		t.Errorf("got %q, want %q", keys, want)
	}
}

func TestOtherFilesAreLeftAlone(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "a: b\n", "sops: {mac: x}\n", "text: about ENC[AES256_GCM,data:…\n", `{"a": "ENC[AES256_GCM,data:x"}`, "# sops:\na: ENC[AES256_GCM,\n", "A=ENC[AES256_GCM,\n",
		"- ENC[AES256_GCM,\n- |\n sops:\n", "a: |\n  ENC[AES256_GCM,\n  sops:\n"} {
		if f, err := sops.Read("a.yaml", []byte(text)); f != nil || err != nil {
			t.Errorf("%q: %v, %v", text, f, err)
		}
	}
}

// swapped is a text with two of its parts, which a pattern finds, in each other's place.
func swapped(text, first, second string) string {
	a, b := regexp.MustCompile(first).FindStringSubmatch(text)[1], regexp.MustCompile(second).FindStringSubmatch(text)[1]
	return strings.NewReplacer(a, b, b, a).Replace(text)
}

func TestWhatIsNotAsItWasEncryptedIsRefused(t *testing.T) {
	t.Parallel()
	some, types, documents := string(read(t, "encrypted", "some.yaml")), string(read(t, "encrypted", "types.yaml")), string(read(t, "encrypted", "documents.yaml"))
	only, env, values := string(read(t, "encrypted", "maconly.yaml")), string(read(t, "encrypted", "settings.env")), string(read(t, "encrypted", "values.json"))
	instead := func(text, pattern, with string) string {
		out := regexp.MustCompile(pattern).ReplaceAllString(text, with)
		if out == text {
			t.Fatalf("%s is not in\n%s", pattern, text)
		}
		return out
	}
	const mac = "a.X: its MAC does not match its values: something was added, removed, moved or changed since it was encrypted; encrypt it again (sops edit)"
	const changed = "cannot be decrypted: the value was changed, moved here from another key, or belongs to another file; encrypt the file again"
	for name, c := range map[string]struct{ text, want string }{
		"a bit of a value":              {instead(some, `(password: ENC\[AES256_GCM,data:)(..)`, "${1}AA"), "a.X: stringData.password " + changed},
		"values changed about":          {swapped(some, `user: (ENC\S+)`, `password: (ENC\S+)`), "a.X: stringData.user " + changed},
		"a value under another key":     {instead(some, `user: ENC`, "name: ENC"), "a.X: stringData.name " + changed},
		"a plain value that changed":    {instead(some, `name: database`, "name: other"), mac},
		"a plain value more":            {instead(some, `(name: database)`, "$1\n    namespace: kube-system"), mac},
		"another document":              {some + "---\nkind: Secret\n", mac},
		"a document less":               {instead(documents, `(?ms)^---$.*`, ""), mac},
		"a value that is gone":          {instead(types, `(?m)^text: .*\n`, ""), mac},
		"items in another order":        {swapped(types, `list:\n.*\n    - (ENC\S+)`, `list:\n.*\n.*\n.*\n    - (ENC\S+)`), mac},
		"a value in clear":              {instead(some, `password: ENC.*`, "password: mine"), "a.X: stringData.password should be encrypted, and is not as SOPS writes it; encrypt the file again"},
		"a number in clear":             {instead(types, `number: ENC.*`, "number: 5"), "a.X: number should be encrypted, and is not; encrypt the file again"},
		"a value that is emptied":       {instead(some, `password: ENC.*`, `password: ""`), mac},
		"one where only those count":    {instead(only, `text: ENC.*`, `text: ""`), mac},
		"another type":                  {instead(some, `(password: ENC.*)type:str`, "${1}type:int"), "a.X: stringData.password is no int, as its type says; encrypt the file again"},
		"a type that hides it":          {instead(types, `(    - ENC.*)type:str`, "${1}type:comment"), mac},
		"no type":                       {instead(some, `(password: ENC.*)type:str`, "${1}type:what"), "a.X: stringData.password is no what, as its type says; encrypt the file again"},
		"no base64":                     {instead(some, `(password: ENC\[AES256_GCM,data:)`, "${1}="), "a.X: stringData.password is encrypted, and not as SOPS writes it; encrypt the file again"},
		"a short tag":                   {instead(some, `(password: ENC.*tag:)[^,]*`, "${1}AAAA"), "a.X: stringData.password is encrypted, and not as SOPS writes it; encrypt the file again"},
		"MAC of another file":           {instead(some, `mac: ENC\S+`, "mac: "+regexp.MustCompile(`mac: (ENC\S+)`).FindStringSubmatch(types)[1]), "a.X: its MAC cannot be decrypted: the SOPS metadata was changed by hand; encrypt it again"},
		"another time":                  {instead(some, `lastmodified: "20..`, `lastmodified: "2001`), "a.X: its MAC cannot be decrypted: the SOPS metadata was changed by hand; encrypt it again"},
		"other rules":                   {instead(some, `encrypted_regex: .*`, "encrypted_regex: ^data$"), "a.X: stringData.user is encrypted, and by the rules of its SOPS metadata should not be; encrypt the file again"},
		"a MAC of what is encrypted":    {instead(some, `( +)mac: `, "${1}mac_only_encrypted: true\n${1}mac: "), mac},
		"a line of dotenv that changed": {instead(env, `SEEN_unencrypted=plain`, "SEEN_unencrypted=other"), mac},
		"a JSON number that changed":    {instead(values, `12345678901234567`, "12345678901234568"), mac},
		"a data key of nothing":         {instead(some, `(?s)(enc: \|).*(\n +recipient)`, "${1}\n            nothing$2"), "a.X: its data key cannot be opened with age1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := file(t, "a.X", []byte(c.text))
			opened, err := f.Open(keys(t, all))
			if err == nil || !strings.HasPrefix(err.Error(), c.want) || opened != nil {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
			if missing := new(sops.MissingKey); errors.As(err, &missing) {
				t.Error("other keys would not help")
			}
		})
	}
}

func TestWhatCannotBeReadIsRefused(t *testing.T) {
	t.Parallel()
	some, env := string(read(t, "encrypted", "some.yaml")), string(read(t, "encrypted", "settings.env"))
	sub := func(pattern, with string) string { return regexp.MustCompile(pattern).ReplaceAllString(some, with) }
	deep := strings.Repeat(`{"a":`, 300) + `"ENC[AES256_GCM,"` + strings.Repeat("}", 300)
	const bare = `{"mac": "x", "lastmodified": "2026-01-02T03:04:05Z", "age": [{"recipient": "a", "enc": "b"}]}`
	for name, c := range map[string]struct{ text, want string }{
		"long keys":            {`{"sops": ` + bare + `, "` + strings.Repeat("k", 3000) + `": "ENC[AES256_GCM,"}`, "a value that is more than 100 deep in a file that is encrypted with SOPS, or whose keys have more than 2000 bytes; it begins with \"kkk"},
		"INI":                  {string(read(t, "encrypted", "settings.ini")), "it is an INI file that is encrypted with SOPS; that is not supported: encrypt it as a whole (sops encrypt --input-type binary), or as YAML, JSON or dotenv"},
		"divided keys":         {string(read(t, "encrypted", "groups.yaml")), "its data key is divided among key_groups (Shamir's secret sharing), which is not supported: encrypt it for one group"},
		"divided keys, dotenv": {string(read(t, "encrypted", "groups.env")), "its data key is divided among key_groups (Shamir's secret sharing), which is not supported: encrypt it for one group"},
		"no YAML":              {some + "\t: :\n", "it looks like a YAML file that is encrypted with SOPS, and cannot be read: line "},
		"no JSON":              {`{"a": "ENC[AES256_GCM,", "sops": {`, "it looks like a JSON file that is encrypted with SOPS, and cannot be read: unexpected end of JSON input"},
		"no dotenv":            {"nothing\n" + env, `a line of a dotenv file that is encrypted with SOPS has no =: it begins with "nothing"`},
		"no MAC":               {sub(`(?m)^    mac: .*\n`, ""), "its SOPS metadata has no mac; encrypt it again"},
		"no recipients":        {sub(`(?s)    age:.*-----END AGE ENCRYPTED FILE-----\n.*?\n`, ""), "its SOPS metadata names no recipients; encrypt it again"},
		"no time":              {sub(`lastmodified: .*`, "lastmodified: today"), "lastmodified of its SOPS metadata is no time; encrypt it again"},
		"no expression":        {sub(`encrypted_regex: .*`, "encrypted_regex: '('"), "encrypted_regex of its SOPS metadata is no regular expression of at most 1000 characters"},
		"two rules":            {sub(`encrypted_regex: .*`, "encrypted_regex: a\n    encrypted_suffix: b"), "its SOPS metadata has more than one of unencrypted_suffix, "},
		"metadata of others":   {"a: ENC[AES256_GCM,\nsops: [1, 2]\n", "its SOPS metadata cannot be read: unmarshal errors:\n  line 2: cannot unmarshal !!seq into sops.metadata"},
		"aliases":              {"a: &a {b: c}\nd: *a\n" + some, "it has anchors and aliases, which SOPS does not write; encrypt it again"},
		"an alias to itself":   {"a: ENC[AES256_GCM,\nsops: &a {mac: x, key_groups: [*a]}\n", "it has anchors and aliases, which SOPS does not write; encrypt it again"},
		"a value of two lines": {sub(`password: (ENC\[AES256_GCM,)(.*)`, "password: \"$1\\\n      $2\""), "is encrypted, and not written on one line as SOPS writes it; encrypt the file again"},
		"one long line":        {"x: [" + strings.Repeat("'ENC[AES256_GCM,', ", 300) + "]\n" + some, "line 1: x is encrypted, and not written on one line as SOPS writes it; encrypt the file again"},
		"a flow mapping":       {"{a: 'ENC[AES256_GCM,'\n,\nsops: {mac: b}}\n", "it looks like a JSON file that is encrypted with SOPS, and cannot be read: invalid character 'a'"},
		"a key that is none":   {"5: ENC[AES256_GCM,\n" + some, `line 1: the key "5" is no text, and SOPS takes no others; put it in quotes and encrypt the file again`},
		"an indented sops":     {"  a: ENC[AES256_GCM,\n  |\nsops:\n", "it looks like a YAML file"},
		"too deep":             {`{"sops": ` + bare + `, "b": ` + deep + `}`, "values more than 100 deep in a file that is encrypted with SOPS"},
		"deep YAML":            {some + "x:\n  " + strings.Repeat("- ", 300) + "a\n", "values more than 100 deep in a file that is encrypted with SOPS"},
		"too many values":      {some + "x:\n" + strings.Repeat("- a\n", 10_001), "more than 10000 values and comments in a file that is encrypted with SOPS; split it"},
		"too many recipients":  {sub(`(?m)^    age:\n`, "    age:\n"+strings.Repeat("        - recipient: a\n", 100)), "it is encrypted for 101 recipients; at most 100 are taken"},
		"recipients, dotenv":   {"sops_age__list_999__map_enc=x\n" + env, "it is encrypted for more than 100 recipients"},
		"a number too large":   {some + "x: 99999999999999999999\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, err := sops.Read("dir/a.X", []byte(c.text))
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if f != nil || err == nil || !strings.HasPrefix(err.Error(), "dir/a.X: ") || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestWithoutTheRightKeyItIsSaidWhichAreMissing(t *testing.T) {
	t.Parallel()
	other := sops.KeyFiles{Age: []string{"testdata/keys/other-age.txt"}}
	for name, c := range map[string]struct {
		keys sops.KeyFiles
		want []string
	}{
		"secret.yaml": {other, []string{"it is encrypted with SOPS for age1", "; there are keys of age1", ": encrypt it for one of these, too (sops rotate --add-age, sops updatekeys), or add a key to sops in the controller's configuration"}},
		"both.env":    {other, []string{"it is encrypted with SOPS for age1", ", PGP ", "; there are keys of age1"}},
		"hybrid.yaml": {sops.KeyFiles{Age: []string{"testdata/keys/age.txt"}}, []string{"it is encrypted with SOPS for age1pq1", "…; there are keys of age1"}},
		"pgp.yaml":    {sops.KeyFiles{PGP: []string{"testdata/keys/pgp-curve.gpg"}}, []string{"it is encrypted with SOPS for PGP ", "; there are keys of PGP "}},
		"values.json": {sops.KeyFiles{}, []string{"it is encrypted with SOPS for age1", ", and there is no key for this repository; name a file with one under sops in the controller's configuration"}},
	} {
		_, err := file(t, "a/"+name, read(t, "encrypted", name)).Open(keys(t, c.keys))
		missing := new(sops.MissingKey)
		if !errors.As(err, &missing) || !strings.HasPrefix(err.Error(), "a/"+name+": ") {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q is not in %v", name, want, err)
			}
		}
	}

	services := regexp.MustCompile(`(?s)    age:.*-----END AGE ENCRYPTED FILE-----\n.*?\n`).ReplaceAllString(string(read(t, "encrypted", "secret.yaml")),
		"    kms: [{arn: 'arn:aws:kms:a', enc: x}]\n    hc_vault: [{vault_address: b, enc: y}]\n")
	if _, err := file(t, "a.yaml", []byte(services)).Open(keys(t, all)); err == nil || !strings.Contains(err.Error(), "it is encrypted with SOPS for AWS KMS, HashiCorp Vault; there are keys of age1") {
		t.Error(err)
	}
}

func TestKeyFilesAreReadStrictly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		at := filepath.Join(dir, name)
		if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return at
	}
	const locked = "testdata/keys/pgp-locked.asc"
	for name, c := range map[string]struct {
		files sops.KeyFiles
		want  string
	}{
		"missing":     {sops.KeyFiles{Age: []string{filepath.Join(dir, "none")}}, "no such file or directory"},
		"comments":    {sops.KeyFiles{Age: []string{write("comments", "# only\n")}}, "comments holds no private key of age; age-keygen makes one"},
		"a word":      {sops.KeyFiles{Age: []string{write("word", "# first\nAGE-SECRET-KEY-1HUNTER2\n")}}, "word:2: not a private key of age; such a line begins with AGE-SECRET-KEY-1, and age-keygen makes one"},
		"no PGP":      {sops.KeyFiles{PGP: []string{write("pgp", "hunter2")}}, "pgp holds no PGP key; gpg --export-secret-keys FINGERPRINT makes such a file"},
		"public":      {sops.KeyFiles{PGP: []string{"testdata/keys/pgp-public.asc"}}, " is a public one; export the private one: gpg --export-secret-keys "},
		"passphrase":  {sops.KeyFiles{PGP: []string{locked}}, " is protected with a passphrase, and nobody is there to type it; take it off (gpg --edit-key "},
		"PGP missing": {sops.KeyFiles{PGP: []string{filepath.Join(dir, "none")}}, "no such file or directory"},
	} {
		_, err := c.files.Read()
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(strings.ToLower(err.Error()), "hunter2") {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
	}
	if text := fmt.Sprintf("%v %+v %#v", keys(t, all), keys(t, all), keys(t, all)); strings.Contains(text, "SECRET") {
		t.Errorf("keys show what they hide: %s", text)
	}
}

func FuzzRead(f *testing.F) {
	entries, err := os.ReadDir("testdata/encrypted")
	if err != nil {
		f.Fatal(err)
	}
	for _, entry := range entries {
		f.Add(entry.Name(), read(f, "encrypted", entry.Name()))
	}
	k := keys(f, all)
	f.Fuzz(func(t *testing.T, name string, text []byte) {
		file, err := sops.Read(name, text)
		if err != nil || file == nil {
			return
		}
		masked := file.Masked()
		for _, v := range file.Values() {
			if !bytes.Contains(masked, []byte(v.Placeholder)) {
				t.Errorf("%s has no place in\n%s", v.Key, masked)
			}
		}
		opened, err := file.Open(k)
		if err != nil {
			return
		}
		for _, v := range file.Values() {
			if !slices.Contains(slices.Collect(maps.Keys(opened.Values)), v.Placeholder) {
				t.Errorf("%s was not opened", v.Key)
			}
		}
	})
}

// What a file asks of regular expressions is counted: its author writes both them and what they are held against.
func TestExpressionsTakeSoManySteps(t *testing.T) {
	t.Parallel()
	const want = "the regular expression in the SOPS metadata takes too long for what the file holds"
	metadata := "sops:\n    mac: x\n    lastmodified: '2026-01-02T03:04:05Z'\n    age: [{recipient: a, enc: b}]\n    %s: '(.?){1000}x'\n"
	comments := strings.Repeat("# "+strings.Repeat("a", 197)+"\n", 4500) + "a: ENC[AES256_GCM,data:aaaa,iv:aaaa,tag:aaaa,type:str]\n" + fmt.Sprintf(metadata, "encrypted_comment_regex")
	long := strings.Repeat("k", 1000)
	var many strings.Builder
	many.WriteString(long + ":\n")
	for i := range 5000 {
		fmt.Fprintf(&many, "  k%d: ENC[AES256_GCM,data:aaaa,iv:aaaa,tag:aaaa,type:str]\n", i)
	}
	for name, text := range map[string]string{"comments": comments, "keys": many.String() + fmt.Sprintf(metadata, "encrypted_regex")} {
		if _, err := sops.Read("a.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
}

// A file's author, who need not have a key, must not make the controller work with its private keys for long.
func TestNoFileAsksForManyTriesOfPrivateKeys(t *testing.T) {
	t.Parallel()
	whole := string(read(t, "encrypted", "pgp.yaml"))
	at := regexp.MustCompile(`(?s)-----BEGIN PGP.*END PGP MESSAGE-----`).FindStringIndex(whole)
	block, err := armor.Decode(strings.NewReader(strings.ReplaceAll(whole[at[0]:at[1]], "\n            ", "\n")))
	if err != nil {
		t.Fatal(err)
	}
	message, err := io.ReadAll(block.Body)
	if err != nil {
		t.Fatal(err)
	}
	key := message[:3+int(message[1])<<8+int(message[2])] // the packet with the key, behind its length
	with := func(keys ...[]byte) string {
		t.Helper()
		var out strings.Builder
		w, err := armor.Encode(&out, "PGP MESSAGE", nil)
		if err == nil {
			_, err = w.Write(bytes.Join(append(keys, message[len(key):]), nil))
		}
		if err = errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(out.String(), "\n", "\n            ")
	}
	many := func(n int, one []byte) [][]byte { return slices.Repeat([][]byte{one}, n) }
	broken := bytes.Clone(key)
	broken[len(broken)-1] ^= 1
	entry := regexp.MustCompile(`(?s)        - created_at.*?fp: \w+\n`).FindString(whole)
	for name, c := range map[string]struct{ text, want string }{
		"as many packets as are taken": {whole[:at[0]] + with(append(many(7, broken), key)...) + whole[at[1]:], ""},
		"one more":                     {whole[:at[0]] + with(append(many(8, broken), key)...) + whole[at[1]:], "pgp.yaml: its data key is encrypted more than 8 times in one PGP message, where SOPS does it once; encrypt the file again"},
		"a long message":               {whole[:at[0]] + with(many(500, broken)...) + whole[at[1]:], " bytes, where SOPS writes fewer than 16384; encrypt the file again"},
		"a recipient again and again": {strings.Replace(whole, entry, strings.Repeat(entry[:at[0]-strings.Index(whole, entry)]+with(broken)+entry[at[1]-strings.Index(whole, entry):], 11), 1),
			"pgp.yaml: its data key cannot be opened with any of the first 10 of its recipients of whom there are keys; encrypt the file again"},
	} {
		_, err := file(t, "pgp.yaml", []byte(c.text)).Open(keys(t, all))
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
