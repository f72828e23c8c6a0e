package render

import (
	"encoding/base64"
	"fmt"
	"regexp"
	"strings"

	"towpath/render/sops"
)

// pieces tells what a template left of a placeholder: it has encrypted values by each run of letters, long enough to be no chance, of what their placeholders end
// with.
type pieces map[string]sops.Value

// pieceLength is how long such a run is.
const pieceLength = 12

// beginning is of each placeholder what no other text has.
const beginning = len("TowpathSop")

var (
	lowerBeginning = strings.ToLower(sops.Prefix[:beginning])
	hexRun         = regexp.MustCompile(fmt.Sprintf(`[0-9a-fA-F]{%d,}`, pieceLength))
)

// base64Run is a text that could hold a placeholder, or a piece of one, in base64.
var base64Run = regexp.MustCompile(`[A-Za-z0-9+/]{16,}={0,2}`)

func piecesOf(values map[string]sops.Value) pieces {
	p := make(pieces, len(values))
	for placeholder, value := range values {
		end := placeholder[len(sops.Prefix):]
		for i := range len(end) - pieceLength + 1 {
			p[end[i:i+pieceLength]] = value
		}
	}
	return p
}

// in says which value has its placeholder, or a piece of it, in a text; the zero one where that cannot be told.
func (p pieces) in(text string) (value sops.Value, found bool) {
	lower := strings.ToLower(text)
	for _, run := range hexRun.FindAllString(lower, -1) {
		for i := range len(run) - pieceLength + 1 {
			if value, found := p[run[i:i+pieceLength]]; found {
				return value, true
			}
		}
	}
	return sops.Value{}, strings.Contains(lower, lowerBeginning)
}

// within is in for what is base64 in a text, too.
func (p pieces) within(text string, depth int) (value sops.Value, found bool) {
	if value, found = p.in(text); found || depth == encodings {
		return value, found
	}
	for _, run := range base64Run.FindAllString(text, -1) {
		plain, _, err := inRun(run)
		if err != nil {
			continue
		}
		if value, found = p.within(plain, depth+1); found {
			return value, true
		}
	}
	return sops.Value{}, inBase64(text, sops.Prefix[:beginning])
}

// inRun decodes what could be base64, and says in which way it is.
func inRun(text string) (plain string, encoding *base64.Encoding, err error) {
	encoding = base64.StdEncoding
	if len(text)%4 != 0 {
		encoding = base64.RawStdEncoding
	}
	decoded, err := encoding.DecodeString(text)
	return string(decoded), encoding, err
}

// called is a value for people.
func called(value sops.Value) string {
	if value.File == "" {
		return "an encrypted value"
	}
	return fmt.Sprintf("the value %s of %s", value.Key, value.File)
}
