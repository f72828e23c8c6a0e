// Package agentpb is the wire as Go has it: between agents and hubs (tunnel.proto), and between hubs (peers.proto).
package agentpb

//go:generate go -C ../../tools run ./protogen -root .. agent/agentpb/tunnel.proto agent/agentpb/peers.proto
