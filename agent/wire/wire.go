// Package wire holds what both ends of the tunnel must agree on: the codec of its frames, which headers travel, which paths are fit to be sent,
// and the limits. It knows nothing of sessions, identities or Kubernetes.
package wire

import "time"

const (
	// Protocol is the version that Hello carries. It stays: growth is fields and features.
	Protocol = 1

	// MaxData is the most a data frame carries. With its own head and gRPC's it fits one HTTP/2 DATA frame of 16,384 bytes.
	MaxData = 16_300

	// MaxHeaders and MaxHeaderBytes bound the headers of one request or answer; names and values count.
	MaxHeaders     = 128
	MaxHeaderBytes = 64 << 10

	// MaxFrame is the most either side reads as one frame: headers at their limit, and room for the rest of Head.
	MaxFrame = 128 << 10

	// MaxPath is the longest path with its query.
	MaxPath = 16 << 10

	// IdleDefault and IdleMost are how many waiting streams an agent keeps: at first, and at most. Each costs the hub some 9 KB, and a request that finds
	// none a round trip.
	IdleDefault = 2
	IdleMost    = 256

	// Kubernetes is the target every agent has unless its configuration says otherwise.
	Kubernetes = "kubernetes"

	// FeatureUpgrade is the feature of agents that carry Upgrade (exec, attach, port-forward).
	FeatureUpgrade = "upgrade"
)

// Metadata of the streams, beside authorization.
const (
	MetaAgent    = "towpath-agent"
	MetaInstance = "towpath-instance"
	MetaSession  = "towpath-session"
)

// Further metadata of forwards between hubs.
const (
	MetaTenant  = "towpath-tenant"
	MetaAvoid   = "towpath-avoid"
	MetaFeature = "towpath-feature"
)

// Keepalive of both sides: a ping each PingEvery, answered within PingAnswer; the hub tolerates pings no closer than PingLeast, which must stay below
// PingEvery or healthy agents are dropped.
const (
	PingEvery  = 10 * time.Second
	PingAnswer = 5 * time.Second
	PingLeast  = 5 * time.Second
)
