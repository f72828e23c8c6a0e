package main

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"time"
)

// process is one whose CPU time is reported under a name.
type process struct{ name, pid string }

// sample is how much CPU time was used up to a moment, in seconds.
type sample struct {
	at        time.Time
	busy      float64 // of the whole machine
	self      float64
	processes []process
	others    []float64 // of processes
}

func take(processes []process) sample {
	s := sample{at: time.Now(), busy: busy(), self: cpu("self"), processes: processes}
	for _, p := range processes {
		s.others = append(s.others, cpu(p.pid))
	}
	return s
}

// cpu is the CPU time of a process (utime + stime, in ticks of 10 ms); 0 where the system does not tell.
func cpu(pid string) float64 {
	text, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	return ticks(fields[11]) + ticks(fields[12])
}

// busy is the CPU time of the whole machine, idle and waiting aside; 0 where the system does not tell.
func busy() (total float64) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(text), "\n")
	for i, field := range strings.Fields(line) {
		if i != 0 && i != 4 && i != 5 && i < 9 {
			total += ticks(field)
		}
	}
	return total
}

func ticks(text string) float64 {
	n, _ := strconv.ParseFloat(text, 64) // the kernel writes numbers
	return n / 100
}
