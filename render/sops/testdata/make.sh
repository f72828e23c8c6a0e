#!/bin/sh
# Makes the files of this directory anew with the original, and keys for them: make generate-sops. Needs go, gpg and a way to the module proxy.
set -eu
version=v3.13.3
tools=$(mktemp -d)
export GNUPGHOME="$tools/gpg" GOBIN="$tools"
mkdir -m 700 "$GNUPGHOME"
go install "github.com/getsops/sops/v3/cmd/sops@$version"
go install filippo.io/age/cmd/age-keygen@v1.3.1
PATH="$tools:$PATH"

rm -rf keys encrypted decrypted
mkdir keys encrypted decrypted
age-keygen -o keys/age.txt 2>/dev/null
age-keygen -o keys/other-age.txt 2>/dev/null
age-keygen -pq -o keys/hybrid-age.txt 2>/dev/null
gpg --batch --quiet --passphrase '' --quick-generate-key 'Tests <tests@example.com>' rsa2048 cert,sign,encrypt never
gpg --batch --quiet --passphrase '' --quick-generate-key 'Curve <curve@example.com>' future-default default never
gpg --batch --quiet --pinentry-mode loopback --passphrase 'long words' --quick-generate-key 'Locked <locked@example.com>' rsa2048 cert,sign,encrypt never
gpg --batch --quiet --armor --export-secret-keys tests@example.com > keys/pgp.asc
gpg --batch --quiet --export-secret-keys curve@example.com > keys/pgp-curve.gpg
gpg --batch --quiet --pinentry-mode loopback --passphrase 'long words' --armor --export-secret-keys locked@example.com > keys/pgp-locked.asc
gpg --batch --quiet --armor --export tests@example.com > keys/pgp-public.asc
fingerprint() { gpg --batch --with-colons --fingerprint "$1" | sed -n 's/^fpr:*\([0-9A-F]*\):$/\1/p' | head -1; }
age=$(age-keygen -y keys/age.txt) hybrid=$(age-keygen -y keys/hybrid-age.txt)
pgp=$(fingerprint tests@example.com) curve=$(fingerprint curve@example.com)

export SOPS_AGE_KEY_FILE=keys/age.txt
# make NAME PLAIN [option...]
make() {
	name=$1 plain=$2
	shift 2
	sops --config "${rules:-/dev/null}" encrypt "$@" "plain/$plain" > "encrypted/$name"
	case $name in
	*.enc) sops --config /dev/null decrypt --input-type binary --output-type binary "encrypted/$name" > "decrypted/$name" ;;
	*) sops --config /dev/null decrypt "encrypted/$name" > "decrypted/$name" ;;
	esac
}
for plain in secret.yaml types.yaml documents.yaml values.json settings.env; do
	make "$plain" "$plain" --age "$age"
done
make blob.enc blob.bin --age "$age" --input-type binary --output-type binary
make whole.enc secret.yaml --age "$age" --input-type binary --output-type binary
make some.yaml secret.yaml --age "$age" --encrypted-regex '^(data|stringData)$'
make but.yaml types.yaml --age "$age" --unencrypted-regex '^(list|number)$'
make suffix.yaml types.yaml --age "$age" --encrypted-suffix _unencrypted
make nosuffix.yaml types.yaml --age "$age" --unencrypted-suffix t
rules=$tools/rules.yaml # there are no options for these
echo "creation_rules: [{age: $age, encrypted_comment_regex: 'first|a block|two'}]" > "$rules"
make bycomment.yaml types.yaml
echo "creation_rules: [{age: $age, unencrypted_comment_regex: 'first|a block|two'}]" > "$rules"
make butcomment.yaml types.yaml
echo "creation_rules: [{age: $age, encrypted_comment_regex: 'comment of'}]" > "$rules"
make bycomment.env settings.env
rules=
rules=$tools/rules.yaml
echo "creation_rules: [{age: $age, encrypted_regex: '^(list|text)$', mac_only_encrypted: true}]" > "$rules"
make maconly.yaml types.yaml
echo "creation_rules: [{age: $age, mac_only_encrypted: true}]" > "$rules"
make maconly.env settings.env
rules=
make pgp.yaml secret.yaml --pgp "$pgp"
make pgp-curve.json values.json --pgp "$curve"
make both.env settings.env --pgp "$pgp,$curve" --age "$age"
SOPS_AGE_KEY_FILE=keys/hybrid-age.txt make hybrid.yaml secret.yaml --age "$hybrid"
sops --config /dev/null encrypt --age "$age" --input-type ini --output-type ini plain/settings.ini > encrypted/settings.ini
# one file for two groups of keys, and one by an old version
cat > "$tools/groups.yaml" <<END
creation_rules: [{shamir_threshold: 2, key_groups: [{age: [$age]}, {pgp: [$pgp]}]}]
END
sops --config "$tools/groups.yaml" encrypt --filename-override a.yaml plain/secret.yaml > encrypted/groups.yaml
sops --config "$tools/groups.yaml" encrypt --filename-override a.env plain/settings.env > encrypted/groups.env
GOBIN="$tools/old" go install github.com/getsops/sops/v3/cmd/sops@v3.9.4
for plain in secret.yaml values.json settings.env; do
	"$tools/old/sops" --config /dev/null encrypt --age "$age" "plain/$plain" > "encrypted/old-$plain"
	"$tools/old/sops" --config /dev/null decrypt "encrypted/old-$plain" > "decrypted/old-$plain"
done
rm -rf "$tools"
