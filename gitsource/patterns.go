package gitsource

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// DefaultPatterns are the globs that say which files are deployment files when nobody says otherwise.
func DefaultPatterns() []string { return []string{"**/towpath.yaml", "**/deploy.y*ml"} }

// never are files that no pattern matches: workflows of GitHub are often named as ours.
const never = ".github"

// Patterns are globs over the paths of a repository. `*` and `?` stand for characters within one name, `[a-z]` for one of a set, `**` as a whole name for
// any number of directories, none included. A pattern matches whole paths, from the repository's root. Nothing under .github is ever matched.
// The zero value matches nothing. Safe for concurrent use.
type Patterns struct {
	globs [][]string
	key   string
}

// NewPatterns reads globs; none at all are DefaultPatterns.
func NewPatterns(globs []string) (Patterns, error) {
	const most = 100
	if len(globs) == 0 {
		globs = DefaultPatterns()
	}
	if len(globs) > most {
		return Patterns{}, fmt.Errorf("%d patterns for deployment files, at most %d", len(globs), most)
	}
	p := Patterns{key: strings.Join(globs, "\x00")}
	for _, glob := range globs {
		parts := strings.Split(strings.TrimPrefix(glob, "./"), "/")
		var err error
		switch {
		case glob == "" || len(glob) > maxPath:
			err = errors.New("it is empty, or too long")
		case strings.HasPrefix(glob, "/"):
			err = fmt.Errorf("paths begin at the repository's root: write %q", strings.TrimLeft(glob, "/"))
		case strings.HasSuffix(glob, "/"):
			err = fmt.Errorf("it names a directory: write %q for all files in it", glob+"**")
		case slices.ContainsFunc(parts, func(part string) bool { return part == "" || part == "." || part == ".." }):
			err = errors.New("it has an empty name, . or .. in it")
		case slices.ContainsFunc(parts, func(part string) bool { return part != "**" && strings.Contains(part, "**") }):
			err = errors.New("** stands alone between slashes")
		}
		for _, part := range parts {
			if _, bad := path.Match(part, ""); bad != nil && err == nil {
				err = fmt.Errorf("%q is no pattern: a [ without its ], or a \\ at the end", part)
			}
		}
		if err != nil {
			return Patterns{}, fmt.Errorf("pattern %q: %w", glob, err)
		}
		if parts[len(parts)-1] == "**" {
			parts = append(parts, "*") // all files below
		}
		p.globs = append(p.globs, parts)
	}
	return p, nil
}

// Match reports whether a path is that of a deployment file.
func (p Patterns) Match(path string) bool {
	if path == "" {
		return false
	}
	at := p.start()
	for {
		name, rest, more := strings.Cut(path, "/")
		if !more {
			return p.file(at, name)
		}
		if at = p.enter(at, name); len(at) == 0 {
			return false
		}
		path = rest
	}
}

// Select are the paths that Match, in their order: which deployment files are among what changed.
func (p Patterns) Select(paths []string) []string {
	var list []string
	for _, path := range paths {
		if p.Match(path) {
			list = append(list, path)
		}
	}
	return list
}

// state is how far each pattern has come in a directory: which of its parts may be next. Ordered, none twice.
type state []position

type position struct {
	glob, part uint16
	root       bool // nothing has been entered yet
}

func (p Patterns) start() state {
	var s state
	for glob := range p.globs {
		s = p.reach(s, position{uint16(glob), 0, true})
	}
	return s
}

// reach adds a position, and those behind a ** that may stand for nothing.
func (p Patterns) reach(s state, at position) state {
	for {
		if !slices.Contains(s, at) {
			s = append(s, at)
		}
		if p.globs[at.glob][at.part] != "**" {
			return s
		}
		at.part++ // there is always a part behind: NewPatterns adds one
	}
}

// enter is the state in a directory of this one.
func (p Patterns) enter(s state, name string) state {
	var next state
	for _, at := range s {
		if at.root && name == never {
			return nil
		}
		at.root = false
		part := p.globs[at.glob][at.part]
		if part == "**" {
			next = p.reach(next, at)
			continue
		}
		if ok, _ := path.Match(part, name); ok && int(at.part)+1 < len(p.globs[at.glob]) {
			next = p.reach(next, position{glob: at.glob, part: at.part + 1})
		}
	}
	return next
}

// file reports whether a file of this directory matches.
func (p Patterns) file(s state, name string) bool {
	for _, at := range s {
		if int(at.part)+1 != len(p.globs[at.glob]) {
			continue
		}
		if ok, _ := path.Match(p.globs[at.glob][at.part], name); ok {
			return true
		}
	}
	return false
}
