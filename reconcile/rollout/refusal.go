package rollout

import "fmt"

// Refusal is why what a person asked for was not done, as a sentence for that person. Nothing was written.
type Refusal struct {
	Kind RefusalKind
	Text string
}

// RefusalKind says what would make the same request succeed.
type RefusalKind int

// Kinds of refusals.
const (
	Conflicts RefusalKind = iota // things stand otherwise: later it may succeed
	Missing                      // what it names is not there
	Malformed                    // it must be put otherwise
	Forbidden                    // somebody else may do it
)

func (r *Refusal) Error() string { return r.Text }

// Refuse makes a Refusal.
func Refuse(kind RefusalKind, format string, args ...any) error {
	return &Refusal{kind, fmt.Sprintf(format, args...)}
}
