package rollout

import (
	"towpath/deployment"
	"towpath/manifest"
)

// FileRecord is what became known of one deployment file at one commit. It is recorded whole or not at all.
type FileRecord struct {
	Tenant, Source, Path, Commit string

	Application string               // "" when it could not be read
	Digest      string               // of the file's text
	Deleted     bool                 // the commit no longer has the file
	Problems    []deployment.Problem // with any error nothing starts
	Renders     []RenderRecord       // those that were made anew; others stay as they are recorded
	Start       *Start               // the deployment of what it moves; nil: it moves nothing
	Stay        *Start               // what it asks for, where that moves nothing; nil: it moves something, or is refused
}

// Asks is what the file asks for, whether that moves anything or not; nil when it is refused.
func (r FileRecord) Asks() *Start {
	if r.Start != nil {
		return r.Start
	}
	return r.Stay
}

// Leave is an application that its file no longer names. Another file of the source that names it inherits it, with what the one before said of its
// objects, though that file may be refused; where there is none, Start takes its lanes down.
type Leave struct {
	Tenant, Source, Path string
	Application          string
	Heir                 string // path; "": nobody
	Prune                bool   // as the file last said
	Start                *Start
}

// RenderRecord is one render of one target of a file, good or failed, and what it depended on.
type RenderRecord struct {
	Source, Path, Target string
	Manifests            string            // digest of the sealed set; "" when it failed
	Objects              []manifest.Object // to be sealed; nil when the set is sealed already
	Trace                []byte            // what it depended on, in render's own form
	Problems             []deployment.Problem
}

// Failed reports whether the render has an error.
func (r RenderRecord) Failed() bool { return HasErrors(r.Problems) }

// HasErrors reports whether any problem is more than a warning.
func HasErrors(problems []deployment.Problem) bool {
	for _, problem := range problems {
		if problem.Severity == deployment.Error {
			return true
		}
	}
	return false
}

// FileState is what is recorded of a file: where it is from, and at which text.
type FileState struct {
	Path, Application, Digest string
	Commit                    string // that it was last recorded at
	Prune                     bool   // as the file last said
	Problems                  []deployment.Problem
}

// Owner is who may change an application: one file of a source, or pushes.
type Owner struct {
	Application  string
	Source, Path string // both "" when it is pushed
	Removed      bool   // nobody owns it any more
}

// Pushed reports whether the application is owned by pushes.
func (o Owner) Pushed() bool { return o.Source == "" }

// SourceState is how far a source's commits were taken in.
type SourceState struct {
	Head      string // newest commit seen
	Processed string // last commit of which each file was recorded; "" at first
	Terms     string // of the source, under which they were
}

// PolicyFiles is the policy files of a source: those in force, and what is wrong with the newest ones.
type PolicyFiles struct {
	Commit   string            // that those in force are of; "": none were good yet
	Files    map[string]string // in force: texts by path
	Digest   string            // of those
	Seen     string            // the commit whose files were read last
	Problems []deployment.Problem
}
