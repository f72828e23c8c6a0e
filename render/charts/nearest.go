package charts

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"
)

// most names or versions that a message lists.
const most = 5

// sameVersion also when one of them begins with v, as some publish them.
func sameVersion(a, b string) bool {
	x, err := semver.NewVersion(a)
	if err != nil {
		return false
	}
	y, err := semver.NewVersion(b)
	return err == nil && x.Equal(y) && x.Metadata() == y.Metadata()
}

// noVersion names the versions nearest to one that is not there: those on both sides of it, the newest first.
func noVersion(w wanted, versions []string) error {
	want, err := semver.NewVersion(w.version)
	if err != nil {
		return err
	}
	var all []*semver.Version
	for _, text := range versions {
		if v, err := semver.NewVersion(text); err == nil { // others are tags that name no version
			all = append(all, v)
		}
	}
	slices.SortFunc(all, func(a, b *semver.Version) int { return b.Compare(a) })
	at := len(all) // the first that is older
	for i, v := range all {
		if v.LessThan(want) {
			at = i
			break
		}
	}
	from := max(0, min(at-most/2, len(all)-most))
	var near []string
	for _, v := range all[from:min(from+most, len(all))] {
		near = append(near, v.Original())
	}
	if len(near) == 0 {
		return fmt.Errorf("%s has no version %s, nor any other", w.chart, w.version)
	}
	return fmt.Errorf("%s has no version %s; the nearest are %s", w.chart, w.version, strings.Join(near, ", "))
}

// alike are those of some names that are most like another.
func alike(name string, names []string) []string {
	names = slices.Clone(names)
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(shared(name, b), shared(name, a)) })
	if len(names) > most {
		names = append(names[:most], fmt.Sprintf("and %d more", len(names)-most))
	}
	if len(names) == 0 {
		return []string{"none"}
	}
	return names
}

// shared is how many letters two names have in common at their beginnings, and many when one holds the other.
func shared(a, b string) int {
	if strings.Contains(a, b) || strings.Contains(b, a) {
		return 100
	}
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}
