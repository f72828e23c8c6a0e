package status

import (
	"slices"
	"strings"
)

// fold is what is seen once a person asks for it.
type fold struct {
	title  string // HTML
	blocks []string
}

const foldEnd = "</details>\n\n"

// begin is followed by an empty line, or what is in the fold is not taken for Markdown.
func (f fold) begin() string { return "<details><summary>" + f.title + "</summary>\n\n" }

func (f fold) size() int {
	size := len(f.begin()) + len(foldEnd)
	for _, b := range f.blocks {
		size += len(b)
	}
	return size
}

// fitted puts the folds of some parts into so many bytes in all. The longest blocks go first, of whichever part, and left says of each part how many of it
// went. Of each part the shortest folds come first.
func fitted(most int, parts [][]fold, left func(blocks int) string) []string {
	type entry struct{ part, fold, block int }
	var spots []entry
	total := 0
	for i, folds := range parts {
		for j, f := range folds {
			total += f.size()
			for k := range f.blocks {
				spots = append(spots, entry{i, j, k})
			}
		}
	}
	length := func(s entry) int { return len(parts[s.part][s.fold].blocks[s.block]) }
	slices.SortStableFunc(spots, func(a, b entry) int { return length(b) - length(a) })
	gone, missing := map[entry]bool{}, make([]int, len(parts))
	remains := map[[2]int]int{}
	for _, s := range spots {
		remains[[2]int{s.part, s.fold}]++
	}
	for _, s := range spots {
		if total <= most {
			break
		}
		gone[s] = true
		if missing[s.part]++; missing[s.part] == 1 {
			total += len(left(len(spots)))
		}
		total -= length(s)
		if at := [2]int{s.part, s.fold}; remains[at] == 1 {
			total -= len(parts[s.part][s.fold].begin()) + len(foldEnd)
		} else {
			remains[at]--
		}
	}
	texts := make([]string, len(parts))
	for i, folds := range parts {
		var kept []fold
		for j, f := range folds {
			k := -1
			f.blocks = slices.DeleteFunc(slices.Clone(f.blocks), func(string) bool { k++; return gone[entry{i, j, k}] })
			if len(f.blocks) > 0 {
				kept = append(kept, f)
			}
		}
		slices.SortStableFunc(kept, func(a, b fold) int { return a.size() - b.size() })
		for _, f := range kept {
			texts[i] += f.begin() + strings.Join(f.blocks, "") + foldEnd
		}
		if missing[i] > 0 {
			texts[i] += left(missing[i])
		}
	}
	return texts
}
