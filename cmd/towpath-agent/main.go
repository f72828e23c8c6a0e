// Command towpath-agent connects a cluster to a Towpath controller. It dials out, and relays the controller's requests to its own API server and to the
// hosts of its allow-list; see docs/reference for its configuration.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"

	"towpath/agent/edge"
	"towpath/internal/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Getenv); err != nil {
		fmt.Fprintln(os.Stderr, "towpath-agent:", err)
		os.Exit(1)
	}
}

// setting is a field of the configuration that a flag, or an environment variable of the same name, can give.
type setting struct {
	name, usage string
	field       func(*edge.Config) *string
}

func settings() []setting {
	return []setting{
		{"agent", "name of this agent at the controller", func(c *edge.Config) *string { return &c.Agent }},
		{"instance", "name of this process among others of the same agent (the host's name)", func(c *edge.Config) *string { return &c.Instance }},
		{"hub", "host:port of the controller's hub", func(c *edge.Config) *string { return &c.Hub.Address }},
		{"hub-ca", "PEM file of the authority that signed the hub's certificate (the system's)", func(c *edge.Config) *string { return &c.Hub.CAFile }},
		{"issuer", "OIDC issuer that gives this agent its tokens", func(c *edge.Config) *string { return &c.Identity.Issuer }},
		{"token-url", "token endpoint, in place of the issuer's discovery document", func(c *edge.Config) *string { return &c.Identity.TokenURL }},
		{"issuer-ca", "PEM file of the authority that signed the issuer's certificate (the system's)", func(c *edge.Config) *string { return &c.Identity.CAFile }},
		{"client-id", "client id at the issuer", func(c *edge.Config) *string { return &c.Identity.ClientID }},
		{"client-secret-file", "file with the client's secret", func(c *edge.Config) *string { return &c.Identity.ClientSecretFile }},
		{"audience", "audience to ask for", func(c *edge.Config) *string { return &c.Identity.Audience }},
		{"resource", "resource to ask for, of an issuer with resource indicators (RFC 8707)", func(c *edge.Config) *string { return &c.Identity.Resource }},
		{"kubernetes-server", "URL of the API server (the pod's)", func(c *edge.Config) *string { return &c.Kubernetes.Server }},
		{"kubernetes-ca", "PEM file of the authority that signed the API server's certificate", func(c *edge.Config) *string { return &c.Kubernetes.CAFile }},
		{"kubernetes-token-file", "file with a ServiceAccount's token", func(c *edge.Config) *string { return &c.Kubernetes.TokenFile }},
		{"listen", "address of health and metrics, or off (:8080)", func(c *edge.Config) *string { return &c.Listen }},
		{"log-level", "error, warn, info or debug (info)", func(c *edge.Config) *string { return &c.LogLevel }},
		{"log-format", "json, console or console-wide (json)", func(c *edge.Config) *string { return &c.LogFormat }},
	}
}

func run(ctx context.Context, arguments []string, getenv func(string) string) error {
	flags := flag.NewFlagSet("towpath-agent", flag.ContinueOnError)
	file := flags.String("config", getenv("TOWPATH_AGENT_CONFIG"), "configuration `file` (YAML)")
	show := flags.Bool("version", false, "print the version and exit")
	given := map[string]*string{}
	for _, s := range settings() {
		given[s.name] = flags.String(s.name, getenv(variable(s.name)), s.usage+"; also "+variable(s.name))
	}
	if err := flags.Parse(arguments); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unknown argument %q; everything is said by flags", flags.Arg(0))
	}
	if *show {
		fmt.Println(buildVersion())
		return nil
	}
	var config edge.Config
	if *file != "" {
		if err := config.Read(*file); err != nil {
			return err
		}
	}
	for _, s := range settings() {
		if value := *given[s.name]; value != "" {
			*s.field(&config) = value
		}
	}
	log := logrus.New()
	lines, err := formatter(config.LogFormat, config.LogColors)
	if err != nil {
		return err
	}
	log.SetFormatter(lines)
	if config.LogLevel != "" {
		level, err := logrus.ParseLevel(config.LogLevel)
		if err != nil {
			return fmt.Errorf("logLevel: %q must be error, warn, info or debug", config.LogLevel)
		}
		log.SetLevel(level)
	}
	if getenv("GOGC") == "" {
		collectInTime()
	}
	go returnMemory(ctx)
	return edge.Run(ctx, config, edge.Options{Version: buildVersion(), Log: log.WithField("agent", config.Agent), Getenv: getenv})
}

const (
	// garbagePercent of what lives may come together between two collections: an idle agent is small in a cluster that others pay for.
	garbagePercent = 30
	// garbageBusy is how many bytes may, where collections would else follow each other within busyWithin: they would take more of the processor than requests do.
	garbageBusy = 3 << 20
	busyWithin  = 100 * time.Millisecond
)

// mark is large enough, and has a pointer, so that it lies in memory by itself.
type mark struct{ _ *mark }

// collectInTime settles, after each collection, when the next one begins.
func collectInTime() {
	alive := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	percent, last := 0, time.Time{}
	var settle func(*mark)
	settle = func(m *mark) {
		now := time.Now()
		wanted := garbagePercent
		if now.Sub(last) < busyWithin {
			metrics.Read(alive)
			wanted = max(wanted, int(garbageBusy*100/max(alive[0].Value.Uint64(), 1<<20)))
		}
		if last = now; wanted != percent {
			percent = wanted
			debug.SetGCPercent(percent)
		}
		runtime.SetFinalizer(m, settle) // nobody refers to it, so it is found again by the next collection
	}
	settle(new(mark))
}

// returnMemory gives back, each minute, what a burst of requests took.
func returnMemory(ctx context.Context) {
	each := time.NewTicker(time.Minute)
	defer each.Stop()
	for {
		select {
		case <-each.C:
			debug.FreeOSMemory()
		case <-ctx.Done():
			return
		}
	}
}

// variable is the environment variable of a flag.
func variable(name string) string {
	name = strings.TrimPrefix(name, "agent")
	return strings.TrimSuffix("TOWPATH_AGENT_"+strings.ToUpper(strings.ReplaceAll(name, "-", "_")), "_")
}

// buildVersion is the version that was built; of a build that nobody told, its commit.
func buildVersion() string {
	if told := version.String(); told != "unknown" {
		return told
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value[:min(12, len(s.Value))]
			}
		}
	}
	return "unknown"
}
