package gitsource

import (
	"fmt"
	"slices"
)

// Changed lists the paths whose content, kind or mode differs between two trees, ordered by name: files, links and submodules, never directories. A nil
// tree is an empty one. What was renamed is listed under both names. Its cost is that of what differs: equal subtrees are not read.
//
// A path longer than 4,096 bytes, and more differences than Limits.Files of the newer tree, are errors.
func Changed(older, newer *Tree) ([]string, error) {
	if older == nil && newer == nil {
		return nil, nil
	}
	var w diff
	var a, b *entry
	if older != nil {
		a, w.older, w.max = &entry{mode: modeTree, hash: older.root}, older.objects, older.limits.Files
	}
	if newer != nil {
		b, w.newer, w.max = &entry{mode: modeTree, hash: newer.root}, newer.objects, newer.limits.Files
	}
	if err := w.compare("", a, b); err != nil {
		return nil, err
	}
	slices.Sort(w.paths)
	return w.paths, nil
}

// diff walks two trees side by side. The library's own diff asks each sibling for its number of children, and so reads every tree beside the path: a
// thousand times dearer.
type diff struct {
	older, newer objects
	paths        []string
	max, seen    int
}

// compare reports what differs between two entries of one path; nil is no entry.
func (w *diff) compare(path string, a, b *entry) error {
	if a != nil && b != nil && a.hash == b.hash && a.mode == b.mode {
		return nil
	}
	if w.seen++; w.seen > w.max {
		return fmt.Errorf("%w: more than %d paths differ", ErrTooLarge, w.max)
	}
	if len(path) > maxPath {
		return fmt.Errorf("%s…: %w: a path of more than %d bytes", path[:64], ErrTooLarge, maxPath)
	}
	aTree, bTree := a != nil && a.isTree(), b != nil && b.isTree()
	if a != nil && !aTree || b != nil && !bTree {
		w.paths = append(w.paths, path)
	}
	if !aTree && !bTree {
		return nil
	}
	var as, bs []entry
	var err error
	if aTree {
		if as, err = w.older.entries(a.hash); err != nil {
			return fmt.Errorf("%s: %w", orRoot(path), err)
		}
	}
	if bTree {
		if bs, err = w.newer.entries(b.hash); err != nil {
			return fmt.Errorf("%s: %w", orRoot(path), err)
		}
	}
	prefix := path
	if prefix != "" {
		prefix += "/"
	}
	for len(as) > 0 || len(bs) > 0 {
		var a, b *entry
		switch {
		case len(bs) == 0 || len(as) > 0 && as[0].name < bs[0].name:
			a, as = &as[0], as[1:]
		case len(as) == 0 || bs[0].name < as[0].name:
			b, bs = &bs[0], bs[1:]
		default:
			a, b, as, bs = &as[0], &bs[0], as[1:], bs[1:]
			if a.hash == b.hash && a.mode == b.mode {
				continue // before the path is built: nearly all of them
			}
		}
		name := ""
		if a != nil {
			name = a.name
		} else {
			name = b.name
		}
		if err := w.compare(prefix+name, a, b); err != nil {
			return err
		}
	}
	return nil
}

func orRoot(path string) string {
	if path == "" {
		return "the root directory"
	}
	return path
}
