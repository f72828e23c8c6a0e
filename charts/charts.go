// Package charts holds the charts that install Towpath, so that programs carry them along.
package charts

import "embed"

// Agent is the agent's chart, below the directory towpath-agent.
//
//go:embed all:towpath-agent
var Agent embed.FS
