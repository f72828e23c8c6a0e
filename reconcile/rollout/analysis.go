package rollout

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"towpath/analysis/judge"
)

// Judgement is what an analysis came to.
type Judgement struct {
	Gate   string    `json:"gate"`
	Failed bool      `json:"failed,omitempty"`
	Text   string    `json:"text"` // "query errors: the mean of 3 runs is 0.02, within the limits (upperLimit 0.05)"
	At     time.Time `json:"at"`
}

// analysis measures each query once an interval, and judges the means of what they answered. confirmed: a person has agreed to go on.
func (d *decision) analysis(v *verdict, gate string, a Analysis, confirmed bool) {
	measured, without := make([][]judge.Run, len(a.Queries)), make([]string, len(a.Queries))
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
			if why != "" {
				d.conclude(v, gate, a, true, fmt.Sprintf("query %s, run %d: %s", q.Name, run, why), confirmed)
				return
			}
			if answer == nil {
				open = true
				continue
			}
			one := judge.Run{Value: answer.Value, NoData: answer.Result == WithoutValue}
			if verdict := judge.Single(one, q.limits()); a.Abort && verdict.Result == judge.Failed {
				d.conclude(v, gate, a, true, fmt.Sprintf("query %s, run %d of %d: %s", q.Name, run, a.Runs, verdict.Reason), confirmed)
				return
			}
			measured[i] = append(measured[i], one)
			if one.NoData {
				without[i] = " (" + answer.Text + ")"
			}
		}
		if open {
			d.lookAgain(v, a, run, until)
			d.measuring(v, gate, a, fmt.Sprintf("an answer in run %d of %d", run, a.Runs))
			return
		}
	}
	failed := false
	var reasons []string
	for i, q := range a.Queries {
		verdict := judge.Mean(measured[i], q.limits())
		failed = failed || verdict.Result == judge.Failed || verdict.Result == judge.NoData && !q.NoDataPasses
		reason := fmt.Sprintf("query %s: %s", q.Name, verdict.Reason)
		if verdict.Result == judge.NoData {
			reason += without[i]
		}
		reasons = append(reasons, reason)
	}
	d.conclude(v, gate, a, failed, strings.Join(reasons, "; "), confirmed)
}

// measure is the answer to one query in one run; nil when there is none yet. why is a phrase where there will be none.
func (d *decision) measure(v *verdict, gate string, a Analysis, q Query, run int, until time.Time) (answer *Answer, why string) {
	c := d.called(gate, q.Name, run)
	if c == nil {
		from := d.Target.Since
		if a.Sliding {
			from = until.Add(-a.Interval)
		}
		d.call(v, Call{Gate: gate, Kind: CallQuery, Name: q.Name, Run: run, Try: 1, From: from, Until: until, Look: a.looks(run, until), Query: &q, Values: Window(d.values(a.Context), from, until)})
		return nil, ""
	}
	answer = d.answer(v, *c, queryTries)
	switch {
	case answer == nil, answer.Result == Answered, answer.Result == WithoutValue:
		return answer, ""
	}
	return nil, answer.Text
}

// looks is when the answers of a run are looked at: with the next one, unless they may end the analysis. One decision a run is enough then.
func (a Analysis) looks(run int, until time.Time) time.Time {
	if a.Abort || run == a.Runs {
		return time.Time{}
	}
	return until.Add(a.Interval)
}

// lookAgain makes sure that answers which wake nobody are looked at.
func (d *decision) lookAgain(v *verdict, a Analysis, run int, until time.Time) {
	looks := a.looks(run, until)
	switch {
	case looks.IsZero():
	case d.f.Now.Before(looks):
		v.wake(looks)
	default:
		v.wake(d.f.Now.Add(early)) // they are late
	}
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

func (q Query) limits() judge.Limits { return judge.Limits{Lower: q.Lower, Upper: q.Upper} }

// Verdict is what one measurement alone would come to.
func (q Query) Verdict(value float64) judge.Verdict {
	return judge.Single(judge.Run{Value: value}, q.limits())
}
