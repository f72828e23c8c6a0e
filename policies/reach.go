// Package policies says who may do what, and what a repository's files may touch. It is pure: it judges values and knows no store.
package policies

import (
	"fmt"
	"path"

	"towpath/manifest"
)

// Reach is one entry of what the files of a source may touch: some kinds of objects in some namespaces of some clusters. Each list holds
// patterns in which * stands for any run of characters; an empty list matches nothing.
type Reach struct {
	Accounts   []string // agent names
	Namespaces []string // of namespaced objects; cluster-wide objects are matched by the name "" only through "*"
	Kinds      []string // "Deployment", "*", or with the group: "Role.rbac.authorization.k8s.io"
}

// Account reports whether any entry reaches the account at all.
func Account(reach []Reach, account string) bool {
	for _, r := range reach {
		if Fits(r.Accounts, account) {
			return true
		}
	}
	return false
}

// Objects is a sentence for each object that no entry lets the source touch on the account, at most ten and a count of the rest.
func Objects(reach []Reach, source, account string, objects []manifest.Object) []string {
	var refused []string
	for _, o := range objects {
		if !reaches(reach, account, o.Key) {
			refused = append(refused, fmt.Sprintf("source %s may not deploy %s to account %s; sources[].allow of the controller's configuration says what it may", source, o.Key, account))
		}
	}
	const most = 10
	if len(refused) > most {
		refused = append(refused[:most], fmt.Sprintf("and %d more objects that source %s may not deploy to account %s", len(refused)-most, source, account))
	}
	return refused
}

func reaches(reach []Reach, account string, key manifest.Key) bool {
	for _, r := range reach {
		if Fits(r.Accounts, account) && Fits(r.Namespaces, key.Namespace) && FitsKind(r.Kinds, key) {
			return true
		}
	}
	return false
}

// FitsKind is Fits for the kind of an object, written as Kind or Kind.group.
func FitsKind(patterns []string, key manifest.Key) bool {
	return Fits(patterns, key.Kind) || Fits(patterns, key.Kind+"."+key.Group)
}

// Fits reports whether a whole name fits any of the patterns, in which * stands for any run of characters; one that cannot be read fits nothing.
func Fits(patterns []string, name string) bool {
	for _, pattern := range patterns {
		if ok, err := path.Match(pattern, name); ok && err == nil {
			return true
		}
	}
	return false
}
