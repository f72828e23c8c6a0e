package render_test

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/Masterminds/sprig/v3"
)

// Charts are rendered twice only where they call what could come out differently, so each function that a chart may call has been looked at for that.
func TestEachFunctionOfChartsIsKnown(t *testing.T) {
	text, err := os.ReadFile("testdata/functions.txt")
	if err != nil {
		t.Fatal(err)
	}
	known := strings.Fields(string(text))
	for _, name := range slices.Sorted(maps.Keys(sprig.TxtFuncMap())) {
		if !slices.Contains(known, name) {
			t.Errorf("charts may call %s now: if it could come out differently another time add it to unstableFunctions, and to testdata/functions.txt in any case", name)
		}
	}
}
