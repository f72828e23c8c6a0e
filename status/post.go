package status

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"towpath/reconcile/rollout"
)

// post is one thing that people see on the forge, as it is to be.
type post struct {
	object string // what it is called in the record of what was told
	spot
	final  bool    // what it is about has ended
	urgent bool    // a person has to see it
	quiet  bool    // it changes what is there; where nothing is, it is nothing
	spare  float64 // the share of the hour's budget from which on it is left out, unless it is final or urgent
	content
}

// spot is where on the forge something is shown.
type spot struct {
	repository string // "OWNER/NAME"
	commit     string
	pull       int
}

// content is what a post shows. What it shows now is a publication, whose zero value is nothing.
type content interface {
	// hash tells what it shows from what it showed before.
	hash() string
	// creates reports whether the next request makes something new.
	creates(shown rollout.Publication) bool
	// put changes the forge by one request, so that what is shown is what is to be, or nearer to it.
	put(ctx context.Context, f forge, at spot, shown rollout.Publication) (rollout.Publication, error)
	// find is what of it arrived of a try that nobody recorded.
	find(ctx context.Context, l *look, at spot) (rollout.Publication, error)
}

// Found is something of ours as the forge shows it.
type Found struct {
	ID   int64
	Hash string // of what it shows; "": it does not say
}

// look reads what the forge shows, of each commit once.
type look struct {
	forge
	statuses map[string]map[string]Status
	runs     map[string]map[string]Found
}

func newLook(f forge) *look {
	return &look{f, map[string]map[string]Status{}, map[string]map[string]Found{}}
}

func (l *look) status(ctx context.Context, at spot, name string) (Status, bool, error) {
	if l.statuses[at.commit] == nil {
		latest, err := l.Latest(ctx, at.repository, at.commit)
		if err != nil {
			return Status{}, false, err
		}
		l.statuses[at.commit] = latest
	}
	s, found := l.statuses[at.commit][strings.ToLower(name)]
	return s, found, nil
}

func (l *look) run(ctx context.Context, at spot, key string) (Found, error) {
	if l.runs[at.commit] == nil {
		runs, err := l.Runs(ctx, at.repository, at.commit)
		if err != nil {
			return Found{}, err
		}
		l.runs[at.commit] = runs
	}
	return l.runs[at.commit][key], nil
}

// sum is short, and another for other texts.
func sum(texts ...string) string {
	all := sha256.Sum256([]byte(strings.Join(texts, "\x00")))
	return hex.EncodeToString(all[:8])
}

// posted are the statuses of a commit as posts.
func posted(statuses []Status, at spot) []post {
	posts := make([]post, len(statuses))
	for i, s := range statuses {
		posts[i] = post{object: strings.ToLower(s.Context), spot: at, final: s.Final, spare: sparesStatuses, content: s}
		if s.target {
			posts[i].spare = sparesTargets
		}
	}
	return posts
}

func (s Status) hash() string { return sum(s.State, s.Description, s.Link) }

// creates: a status is never changed; a newer one of its context hides it.
func (s Status) creates(rollout.Publication) bool { return true }

func (s Status) put(ctx context.Context, f forge, at spot, shown rollout.Publication) (rollout.Publication, error) {
	shown.Hash = s.hash()
	return shown, f.Create(ctx, at.repository, at.commit, s)
}

func (s Status) find(ctx context.Context, l *look, at spot) (rollout.Publication, error) {
	found, there, err := l.status(ctx, at, s.Context)
	if err != nil || !there {
		return rollout.Publication{}, err
	}
	return rollout.Publication{Hash: found.hash()}, nil
}
