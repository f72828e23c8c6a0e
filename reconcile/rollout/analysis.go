package rollout

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Judgement is what an analysis came to.
type Judgement struct {
	Gate   string    `json:"gate"`
	Failed bool      `json:"failed,omitempty"`
	Text   string    `json:"text"` // a phrase: "errors 0.02 is within its limits (at most 0.05)"
	At     time.Time `json:"at"`
}

// analysis measures each query once an interval, and judges the means of what they answered. confirmed: a person has agreed to go on.
func (d *decision) analysis(v *verdict, gate string, a Analysis, confirmed bool) {
	measured := make([][]float64, len(a.Queries))
	for run := 1; run <= a.Runs; run++ {
		until := d.Target.Since.Add(time.Duration(run) * a.Interval)
		if d.f.Now.Before(until) && !d.judged(gate) {
			v.wake(until)
			d.measuring(v, gate, a, fmt.Sprintf("run %d of %d, at %s", run, a.Runs, until.UTC().Format(time.TimeOnly)))
			return
		}
		open := false
		for i, q := range a.Queries {
			answer, why := d.measure(v, gate, a, q, run, until)
			switch {
			case why != "":
				d.conclude(v, gate, a, true, fmt.Sprintf("query %s, run %d: %s", q.Name, run, why), confirmed)
				return
			case answer == nil:
				open = true
			default:
				measured[i] = append(measured[i], answer.Value)
				if a.Abort && q.Outside(answer.Value) {
					d.conclude(v, gate, a, true, fmt.Sprintf("%s in run %d of %d", q.phrase(answer.Value), run, a.Runs), confirmed)
					return
				}
			}
		}
		if open {
			d.measuring(v, gate, a, fmt.Sprintf("an answer in run %d of %d", run, a.Runs))
			return
		}
	}
	failed := false
	var phrases []string
	for i, q := range a.Queries {
		value := mean(measured[i])
		failed = failed || q.Outside(value)
		phrases = append(phrases, q.phrase(value))
	}
	d.conclude(v, gate, a, failed, strings.Join(phrases, "; "), confirmed)
}

// measure is the answer to one query in one run; nil when there is none yet. why is a phrase where there will be none.
func (d *decision) measure(v *verdict, gate string, a Analysis, q Query, run int, until time.Time) (answer *Answer, why string) {
	c := d.called(gate, q.Name, run)
	if c == nil {
		from := d.Target.Since
		if a.Sliding {
			from = until.Add(-a.Interval)
		}
		d.call(v, Call{Gate: gate, Kind: CallQuery, Name: q.Name, Run: run, Try: 1, Until: until, Query: &q, Values: window(d.values(a.Context), from, until)})
		return nil, ""
	}
	answer = d.answer(v, *c, queryTries)
	switch {
	case answer == nil, answer.Result == Answered:
		return answer, ""
	case answer.Result == WithoutValue:
		return nil, "there is no data: " + answer.Text
	}
	return nil, answer.Text
}

func (d *decision) measuring(v *verdict, gate string, a Analysis, needs string) {
	end := d.Target.Since.Add(time.Duration(a.Runs) * a.Interval)
	v.waits = append(v.waits, Wait{Kind: WaitAnalysis, Gate: gate, Until: end, Needs: "the analysis " + gate + ": " + needs, Command: d.command("skip")})
}

// conclude records a judgement, and has a person confirm it where the file says so.
func (d *decision) conclude(v *verdict, gate string, a Analysis, failed bool, text string, confirmed bool) {
	t := &d.Target
	if !d.judged(gate) {
		t.Judged = append(slices.Clone(t.Judged), Judgement{gate, failed, text, d.f.Now})
		d.Changed = true
		kind, what := "target.analysis_passed", "passed"
		if failed {
			kind, what = "target.analysis_failed", "failed"
		}
		d.say(kind, fmt.Sprintf("%s: the analysis %s %s", t.Name, gate, what), text)
	}
	manual := failed && a.ManualBack || !failed && a.ManualForward
	switch {
	case manual && confirmed:
	case manual:
		verdict := "passed"
		if failed {
			verdict = "failed"
		}
		v.waits = append(v.waits, Wait{Kind: WaitApproval, Gate: gate, Needs: fmt.Sprintf("a person to judge the analysis %s, which %s: %s; approve goes on, reject goes back", gate, verdict, text),
			Command: d.command("approve")})
	case failed:
		v.fail(fmt.Sprintf("the analysis %s failed: %s", gate, text), false)
	}
}

func (d *decision) judged(gate string) bool {
	return slices.ContainsFunc(d.Target.Judged, func(j Judgement) bool { return j.Gate == gate })
}

// Outside reports whether a value is outside the limits.
func (q Query) Outside(value float64) bool {
	return q.Lower != nil && value < *q.Lower || q.Upper != nil && value > *q.Upper
}

// phrase says how a value stands to the limits.
func (q Query) phrase(value float64) string {
	var limits []string
	if q.Lower != nil {
		limits = append(limits, "at least "+number(*q.Lower))
	}
	if q.Upper != nil {
		limits = append(limits, "at most "+number(*q.Upper))
	}
	stands := "within"
	if q.Outside(value) {
		stands = "outside"
	}
	return fmt.Sprintf("%s %s is %s its limits (%s)", q.Name, number(value), stands, strings.Join(limits, ", "))
}

func number(value float64) string { return strconv.FormatFloat(value, 'g', 6, 64) }

func mean(values []float64) float64 {
	sum := 0.0
	for _, value := range values {
		sum += value
	}
	return sum / float64(len(values))
}
