package rollout

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"towpath/analysis/judge"
	"towpath/deployment"
)

// Judgement is what an analysis came to.
type Judgement struct {
	Gate   string    `json:"gate"`
	Failed bool      `json:"failed,omitempty"`
	Text   string    `json:"text"` // "query errors: the mean of 3 runs is 0.02, within the limits (upperLimit 0.05)"
	At     time.Time `json:"at"`

	Sum      string `json:"sum,omitempty"`      // of an analysis that reports at first
	Reported bool   `json:"reported,omitempty"` // it was only told
}

// measured is what the runs of one query answered, of the new version and of the baseline.
type measured struct {
	canary, baseline []judge.Run
	without          string   // why the last one had no data
	unfilled         []string // as Answer has it
}

// analysis measures each query once an interval, and judges what they answered. confirmed: a person has agreed to go on.
func (d *decision) analysis(v *verdict, gate string, a Analysis, confirmed bool) {
	all := make([]measured, len(a.Queries))
	for run := 1; run <= a.Runs; run++ {
		until := d.Target.Since.Add(time.Duration(run) * a.Interval)
		if d.f.Now.Before(until) && d.judged(gate) == nil {
			v.wake(until)
			d.measuring(v, gate, a, fmt.Sprintf("run %d of %d, at %s", run, a.Runs, until.UTC().Format(time.TimeOnly)))
			return
		}
		open := false
		for i, q := range a.Queries {
			answered, why := d.measure(v, gate, a, q, run, until, &all[i])
			switch {
			case why != "":
				d.conclude(v, gate, a, true, fmt.Sprintf("query %s, run %d of %d: %s", q.Name, run, a.Runs, why), confirmed)
				return
			case !answered:
				open = true
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
		for _, verdict := range d.verdicts(a, q, all[i]) {
			failed = failed || verdict.Result == judge.Failed || verdict.Result == judge.NoData && !q.NoDataPasses
			reasons = append(reasons, fmt.Sprintf("query %s: %s", q.Name, verdict.Reason))
		}
		if empty := deployment.Unfilled(all[i].unfilled); empty != "" { // a verdict on half a query is told as one
			reasons = append(reasons, fmt.Sprintf("query %s: %s", q.Name, empty))
		}
	}
	d.conclude(v, gate, a, failed, strings.Join(reasons, "; "), confirmed)
}

// measure adds what a query answered in one run. It reports false while an answer is open; why is a phrase that ends the analysis.
func (d *decision) measure(v *verdict, gate string, a Analysis, q Query, run int, until time.Time, m *measured) (answered bool, why string) {
	answered = true
	for _, side := range d.measuredOf(a) {
		answer, none := d.measurement(v, gate, a, q, run, until, side)
		if none != "" {
			return true, none
		}
		if answer == nil {
			answered = false
			continue
		}
		one := judge.Run{Value: answer.Value, NoData: answer.Result == WithoutValue}
		if side.of != "" {
			m.baseline = append(m.baseline, one)
			continue
		}
		m.canary, m.unfilled = append(m.canary, one), answer.Unfilled
		if one.NoData {
			m.without = " (" + answer.Text + ")"
		}
		if verdict := judge.Single(one, q.limits()); a.Abort && verdict.Result == judge.Failed {
			return true, verdict.Reason + answer.unfilled()
		}
	}
	return answered, ""
}

// side is whom a measurement is of.
type side struct {
	of         string // as Call has it
	replicaSet string // that its query asks for; "": the first of the manifests'
}

// measuredOf is whom an analysis measures: the new version, and its baseline where there is one.
func (d *decision) measuredOf(a Analysis) []side {
	if canary, baseline := d.compared(); a.Baseline && baseline != "" {
		return []side{{"", canary}, {baseline, baseline}}
	}
	return []side{{}}
}

// verdicts on a query: on its limits, and on what it says of the new version beside the baseline.
func (d *decision) verdicts(a Analysis, q Query, m measured) []judge.Verdict {
	limits := judge.Mean(m.canary, q.limits())
	if limits.Result == judge.NoData {
		limits.Reason += m.without
	}
	if !a.Baseline {
		return []judge.Verdict{limits}
	}
	if _, baseline := d.compared(); baseline == "" {
		limits.Reason += "; " + d.uncompared()
		return []judge.Verdict{limits}
	}
	return []judge.Verdict{limits, judge.Compare(m.canary, m.baseline, q.limits()).Verdict}
}

// measurement is the answer to one query in one run; nil when there is none yet. why is a phrase where there will be none.
func (d *decision) measurement(v *verdict, gate string, a Analysis, q Query, run int, until time.Time, of side) (answer *Answer, why string) {
	c := d.called(gate, q.Name, run, of.of)
	if c == nil {
		from := d.Target.Since
		if a.Sliding {
			from = until.Add(-a.Interval)
		}
		values := d.values(a.Context)
		if of.replicaSet != "" {
			values["armory.replicaSetName"] = of.replicaSet
		}
		d.call(v, Call{Gate: gate, Kind: CallQuery, Name: q.Name, Run: run, Of: of.of, Try: 1, From: from, Until: until, Look: a.looks(run, until), Query: &q, Values: Window(values, from, until)})
		return nil, ""
	}
	answer = d.answer(v, *c, queryTries)
	switch {
	case answer == nil, answer.Result == Answered, answer.Result == WithoutValue:
		return answer, ""
	}
	return nil, answer.Text + answer.unfilled()
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
	judged := d.judged(gate)
	if judged == nil {
		judged = d.record(gate, a, failed, text)
	}
	manual := failed && a.ManualBack || !failed && a.ManualForward
	switch {
	case judged.Reported, manual && confirmed:
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

// record says what an analysis came to.
func (d *decision) record(gate string, a Analysis, failed bool, text string) *Judgement {
	t := &d.Target
	j, remark := Judgement{Gate: gate, Failed: failed, Text: text, At: d.f.Now}, ""
	if a.ReportOnly > 0 {
		j.Sum = a.sum()
		nth := d.nth(j.Sum)
		if j.Reported = nth <= a.ReportOnly; j.Reported {
			remark = fmt.Sprintf(", which is only reported in this deployment, %d of the first %d", nth, a.ReportOnly)
		}
	}
	t.Judged = append(slices.Clone(t.Judged), j)
	d.Changed = true
	kind, what := "target.analysis_passed", "passed"
	if failed {
		kind, what = "target.analysis_failed", "failed"
	}
	d.say(kind, fmt.Sprintf("%s: the analysis %s %s%s", t.Name, gate, what, remark), text)
	return &t.Judged[len(t.Judged)-1]
}

// nth is the how manieth deployment of the lane this is in which an analysis is judged; it counts once, however often it is.
func (d *decision) nth(sum string) int {
	before := d.f.Judged[sum]
	switch {
	case slices.Contains(d.Judges, sum): // in this very decision
	case slices.ContainsFunc(d.Target.Judged, func(o Judgement) bool { return o.Sum == sum }):
		before--
	default:
		d.Judges = append(d.Judges, sum)
	}
	return before + 1
}

// sum tells analyses apart that ask, or demand, something else.
func (a Analysis) sum() string {
	a.ReportOnly = 0
	text, _ := json.Marshal(a) // of texts and numbers that were read from a file
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// judged is what an analysis came to; nil: it has not been judged.
func (d *decision) judged(gate string) *Judgement {
	if i := slices.IndexFunc(d.Target.Judged, func(j Judgement) bool { return j.Gate == gate }); i >= 0 {
		return &d.Target.Judged[i]
	}
	return nil
}

// ReportsAtFirst reports whether a way has an analysis whose verdicts are only told at first.
func (w Way) ReportsAtFirst() bool {
	return slices.ContainsFunc(w.steps(), func(s Step) bool { return s.Analysis != nil && s.Analysis.ReportOnly > 0 })
}

func (q Query) limits() judge.Limits { return judge.Limits{Lower: q.Lower, Upper: q.Upper} }

// Verdict is what one measurement alone would come to.
func (q Query) Verdict(value float64) judge.Verdict {
	return judge.Single(judge.Run{Value: value}, q.limits())
}
