package rollout

import "time"

// Comment is one below a pull request in which somebody may ask for something.
type Comment struct {
	Pull  ProposalName // that it stands below
	ID    int64        // that the forge gave it
	Sum   string       // of what it said when it was heard of
	Heard time.Time
	Tries int       // that failed in a row
	Until time.Time // it is ours; nobody else answers it before
}

// Reply is the answer to a comment.
type Reply struct {
	Signs []string // what is put beside it, by GitHub's names: "+1"
	Text  string   // in Markdown; "": the signs say all
}

// Replied is a comment with the answer to it.
type Replied struct {
	Comment int64
	Reply
}
