package hub

import (
	"context"
	"fmt"

	"towpath/agent/agentpb"
)

// Code tells the tunnel's own failures from a target's answers.
type Code string

// The codes of Error.
const (
	NoAgent     Code = "NO_AGENT"    // no session of the agent within Limits.Wait
	Refused     Code = "REFUSED"     // the agent's configuration, or a rule of the tunnel, forbids the request
	Busy        Code = "BUSY"        // too many requests at once
	Dial        Code = "DIAL"        // the agent could not reach the target
	Timeout     Code = "TIMEOUT"     // the caller's deadline passed at the agent
	Lost        Code = "LOST"        // a connection broke in the middle
	Drain       Code = "DRAIN"       // ended because the agent or the hub stops
	Unsupported Code = "UNSUPPORTED" // the agent or the tunnel cannot do this
)

// Error is a failure of the tunnel: the target said nothing, or not all. Transports return it from RoundTrip and from reading a body.
type Error struct {
	Code    Code
	Agent   string
	Target  string
	Message string
	Sent    bool // bytes may have left for the target: whether a write took effect is unknown, so read before writing again
}

// Error names the agent, the target and what went wrong.
func (e *Error) Error() string {
	effect := ""
	if e.Sent {
		effect = "; whether the request took effect is unknown"
	}
	return fmt.Sprintf("agent %q, target %q: %s: %s%s", e.Agent, e.Target, e.Code, e.Message, effect)
}

// Temporary reports whether the same request may succeed later without anybody changing a configuration.
func (e *Error) Temporary() bool {
	return e.Code != Refused && e.Code != Unsupported
}

func codeOf(c agentpb.Code) Code {
	switch c {
	case agentpb.Code_NO_AGENT, agentpb.Code_REFUSED, agentpb.Code_BUSY, agentpb.Code_DIAL, agentpb.Code_TIMEOUT, agentpb.Code_LOST,
		agentpb.Code_DRAIN, agentpb.Code_UNSUPPORTED:
		return Code(c.String())
	}
	return Lost
}

func (c Code) wire() agentpb.Code { return agentpb.Code(agentpb.Code_value[string(c)]) }

// Is makes TIMEOUT the end of a deadline, which it is wherever it was noticed.
func (e *Error) Is(target error) bool { return e.Code == Timeout && target == context.DeadlineExceeded }
