package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// idle is what an installation costs while nothing happens.
func idle(ctx context.Context, b *bench) error {
	s, err := b.withApps(ctx, b.count(1000))
	if err != nil {
		return err
	}
	lasts := time.Minute
	if b.quick {
		lasts = 10 * time.Second
	}
	pause(ctx, lasts) // for what follows a deployment: watches that close, jobs that are cleaned up, memory that is given back
	disturbed := b.quiet.watch()
	before, began := family(s.serves.PID()), time.Now()
	pause(ctx, lasts)
	after, seconds := family(s.serves.PID()), time.Since(began).Seconds()
	agent := family(s.agent.PID())
	by := disturbed()
	binary, err := os.Stat(filepath.Join(b.programs, "towpath-agent"))
	if err != nil {
		return err
	}
	what := fmt.Sprintf("%d synced apps, nothing happens, controller and workers", s.apps)
	b.results.add(by, figure{Name: what + ", processor", Value: (after.seconds - before.seconds) / seconds * 100, Unit: "% of a core", Goal: atMost(1), Detail: fmt.Sprintf("over %.0f s", seconds)})
	b.results.add(by, figure{Name: what + ", PSS", Value: after.pss, Unit: "MiB", Goal: atMost(250), Detail: fmt.Sprintf("%d processes", after.processes)})
	b.results.add(by, figure{Name: "agent, RSS", Value: agent.rss, Unit: "MiB", Goal: atMost(20)})
	b.results.add("", figure{Name: "agent, binary", Value: float64(binary.Size()) / (1 << 20), Unit: "MiB", Goal: atMost(16)})
	return ctx.Err()
}

// cost of a process and all below it. Memory is in MiB.
type cost struct {
	seconds, pss, rss float64
	processes         int
}

func family(root int) (c cost) {
	for _, s := range tree(root) {
		dir := "/proc/" + strconv.Itoa(s.pid)
		c.processes++
		c.seconds += s.own + s.reaped
		c.pss += kilobytes(dir+"/smaps_rollup", "Pss:") / 1024
		c.rss += kilobytes(dir+"/status", "VmRSS:") / 1024
	}
	return c
}

// kilobytes is a line of a file of the kernel's; 0 when there is none.
func kilobytes(file, name string) float64 {
	text, err := os.Open(file)
	if err != nil {
		return 0
	}
	defer text.Close()
	for lines := bufio.NewScanner(text); lines.Scan(); {
		if rest, found := strings.CutPrefix(lines.Text(), name); found {
			n, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64) // the kernel writes numbers
			return n
		}
	}
	return 0
}
