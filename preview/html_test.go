package preview

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestAWordIsLeftOutWhereverReadsCutIt(t *testing.T) {
	for given, want := range map[string]string{
		"": "", "a": "a", "/proxy": "", "/prox": "/prox", "a/proxy/b": "a/b", "/proxy/proxy": "", "/pro/proxyxy": "/proxy",
		strings.Repeat("x/proxy", 5000): strings.Repeat("x", 5000),
	} {
		for how, reader := range map[string]io.Reader{"whole": strings.NewReader(given), "by bytes": iotest.OneByteReader(strings.NewReader(given)),
			"with its end": iotest.DataErrReader(strings.NewReader(given))} {
			got, err := io.ReadAll(&without{from: io.NopCloser(reader), word: []byte("/proxy")})
			if err != nil || string(got) != want {
				t.Errorf("%.20q read %s is %.20q (%v), want %.20q", given, how, got, err, want)
			}
		}
	}
	broken := errors.New("cut")
	got, err := io.ReadAll(&without{from: io.NopCloser(io.MultiReader(strings.NewReader("a/pro"), iotest.ErrReader(broken))), word: []byte("/proxy")})
	if !errors.Is(err, broken) || string(got) != "a/pro" {
		t.Errorf("a text that breaks off gives %q, %v", got, err)
	}
}
