package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"
)

// results of a run.
type results struct {
	At      time.Time `json:"at"`
	Commit  string    `json:"commit"`
	Command string    `json:"command"`
	Cores   int       `json:"cores"`
	Quick   bool      `json:"quick"`
	// Disturbed says that something else used the machine during at least one figure.
	Disturbed bool     `json:"disturbed"`
	Remark    string   `json:"remark"`
	Figures   []figure `json:"figures"`
}

// figure is one number, and what it was to be.
type figure struct {
	Name      string  `json:"name"`
	Value     float64 `json:"value"`
	Unit      string  `json:"unit"`
	Goal      goal    `json:"goal"`
	Met       bool    `json:"met"`
	Detail    string  `json:"detail,omitempty"`
	Disturbed string  `json:"disturbed,omitempty"` // by what
}

// goal bounds a figure; the zero value asks for nothing.
type goal string

func atMost(n float64) goal { return goal(fmt.Sprintf("<= %g", n)) }

func atLeast(n float64) goal { return goal(fmt.Sprintf(">= %g", n)) }

func (g goal) met(value float64) bool {
	var sign string
	var bound float64
	if n, err := fmt.Sscanf(string(g), "%s %g", &sign, &bound); err != nil || n != 2 {
		return true
	}
	if sign == ">=" {
		return value >= bound
	}
	return value <= bound
}

func newResults(quick bool) *results {
	commit, err := exec.Command("git", "describe", "--always", "--dirty").Output()
	if err != nil {
		commit = []byte("unknown")
	}
	return &results{At: time.Now().UTC().Truncate(time.Second), Commit: strings.TrimSpace(string(commit)), Command: "bench " + strings.Join(os.Args[1:], " "),
		Cores: runtime.NumCPU(), Quick: quick, Remark: "the local clusters' etcd does not fsync"}
}

// add records a figure; by says what disturbed it, "" nothing did.
func (r *results) add(by string, f figure) {
	f.Met, f.Disturbed = f.Goal.met(f.Value), by
	r.Disturbed = r.Disturbed || by != ""
	r.Figures = append(r.Figures, f)
}

func (f figure) String() string {
	return strings.TrimRight(fmt.Sprintf("%s: %.4g %s %s", f.Name, f.Value, f.Unit, f.verdict()), " ")
}

// verdict is a word for each figure: a goal that was missed is called so, whatever the machine did meanwhile.
func (f figure) verdict() string {
	verdict := "met"
	switch {
	case f.Goal == "":
		verdict = ""
	case !f.Met:
		verdict = "MISSED"
	}
	if f.Disturbed != "" {
		verdict = strings.TrimSpace(verdict + " (disturbed: " + f.Disturbed + ")")
	}
	return verdict
}

func (r *results) print(out io.Writer) {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "figure\tvalue\tunit\tgoal\tverdict\tdetail")
	for _, f := range r.Figures {
		fmt.Fprintf(table, "%s\t%.4g\t%s\t%s\t%s\t%s\n", f.Name, f.Value, f.Unit, f.Goal, f.verdict(), f.Detail)
	}
	table.Flush()
	fmt.Fprintf(out, "%d cores, %s, commit %s; %s\n", r.Cores, r.At.Format(time.DateTime), r.Commit, r.Remark)
	if r.Disturbed {
		fmt.Fprintln(out, "The run was disturbed: other processes used the machine. Repeat it on a quiet one before judging by it.")
	}
}

func (r *results) write(path string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}
