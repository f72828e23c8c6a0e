package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// quiet tells whether anything but the run itself uses the machine: by the kernel's count of processor time, and by a piece of work that always costs
// the same, in case the machine is a guest whose host tells nothing.
type quiet struct {
	work time.Duration // the shortest that the work took in this run
}

// Bounds beyond which a figure was disturbed.
const (
	elsewhere = 0.2 // cores used by processes that are not ours
	stolen    = 0.05
	slower    = 1.3 // than the fixed work took at best
)

func newQuiet() *quiet {
	q := &quiet{work: time.Hour}
	for range 5 {
		q.work = min(q.work, fixedWork())
	}
	return q
}

// fixedWork is some 50 ms of one core.
func fixedWork() time.Duration {
	began := time.Now()
	var sum [sha256.Size]byte
	block := make([]byte, 64<<10)
	for range 200 {
		copy(block, sum[:])
		sum = sha256.Sum256(block)
	}
	return time.Since(began)
}

// watch begins a stretch of time; the function it returns ends it and says what disturbed it, "" nothing did.
func (q *quiet) watch() (ended func() (by string)) {
	began, before := time.Now(), use()
	work := q.settled()
	return func() string {
		after, seconds := use(), time.Since(began).Seconds()
		var by []string
		if cores := (after.busy - before.busy - (after.ours - before.ours)) / seconds; cores > elsewhere {
			by = append(by, fmt.Sprintf("%.1f cores used elsewhere", cores))
		}
		if share := (after.stolen - before.stolen) / seconds; share > stolen {
			by = append(by, fmt.Sprintf("%.2f cores stolen", share))
		}
		if work > slower {
			by = append(by, fmt.Sprintf("fixed work took %.1f times as long", work))
		}
		return strings.Join(by, ", ")
	}
}

// settled is how much longer the fixed work takes now than it did at best: the best of a few, since our own processes run too.
func (q *quiet) settled() float64 {
	now := time.Hour
	for range 3 {
		now = min(now, fixedWork())
	}
	q.work = min(q.work, now)
	return float64(now) / float64(q.work)
}

// usage is processor time in seconds since the machine started.
type usage struct{ busy, stolen, ours float64 }

func use() usage {
	u := usage{ours: ours()}
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return u // a system that does not tell: only the fixed work does
	}
	line, _, _ := strings.Cut(string(text), "\n")
	for i, field := range strings.Fields(line) {
		switch i {
		case 1, 2, 3, 6, 7: // user, nice, system, interrupts
			u.busy += ticks(field)
		case 8:
			u.stolen = ticks(field)
		}
	}
	return u
}

// ours is what this process and all below it used.
func ours() (total float64) {
	for _, s := range tree(os.Getpid()) {
		total += s.own + s.reaped
	}
	return total
}

// tree is a process and all below it.
func tree(root int) []stat {
	all := map[int]stat{}
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil
	}
	for _, file := range files {
		if s, ok := readStat(file); ok {
			all[s.pid] = s
		}
	}
	var below []stat
	for _, s := range all {
		for at := s.pid; at > 1; at = all[at].parent {
			if at == root {
				below = append(below, s)
				break
			}
		}
	}
	return below
}

// stat is what the kernel says of one process.
type stat struct {
	pid, parent int
	own, reaped float64 // seconds of the process; of children that ended
}

func readStat(file string) (s stat, ok bool) {
	text, err := os.ReadFile(file)
	end := bytes.LastIndexByte(text, ')')
	if err != nil || end < 0 {
		return s, false // it ended meanwhile
	}
	s.pid, _ = strconv.Atoi(filepath.Base(filepath.Dir(file)))
	fields := strings.Fields(string(text[end+1:]))
	s.parent, _ = strconv.Atoi(fields[1])
	s.own = ticks(fields[11]) + ticks(fields[12])
	s.reaped = ticks(fields[13]) + ticks(fields[14])
	return s, true
}

// ticks of the kernel are 10 ms.
func ticks(text string) float64 {
	n, _ := strconv.ParseFloat(text, 64) // the kernel writes numbers
	return n / 100
}
