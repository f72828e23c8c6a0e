package deployment

import (
	"fmt"
	"strings"
)

const (
	// LeastRuns is how often each query of a comparison runs at least: of fewer, no difference could be told from chance.
	LeastRuns = 5
	// MostCompared is the largest weight, in percent, at which there is room for a baseline as large as the canary.
	MostCompared = 50
)

// baselines checks the analyses of a canary that compare it with the version before.
func (r *reader) baselines(f *value, steps []*value, field string) {
	weight := 0
	for i, step := range steps {
		if w := step.get("setWeight").get("weight"); w != nil {
			weight = w.number()
		}
		analysis := step.get("analysis")
		if !analysis.get("baseline").isTrue() {
			continue
		}
		at, baseline := fmt.Sprintf("%s[%d].analysis", field, i), analysis.get("baseline")
		if runs := analysis.get("numberOfJudgmentRuns"); runs != nil && runs.number() < LeastRuns {
			r.fail(runs.at, at+".numberOfJudgmentRuns", "a comparison with a baseline needs at least %d runs; of %d no difference can be told from chance", LeastRuns, runs.number())
		}
		if lookback := analysis.get("lookbackMethod"); lookback.text() == "growing" {
			r.fail(lookback.at, at+".lookbackMethod", "runs of a comparison look at times of their own; leave lookbackMethod out, or write sliding")
		}
		switch {
		case weight == 0:
			r.fail(baseline.at, at+".baseline", "the canary has no share yet, so there is nothing to compare; a setWeight above 0 has to come before")
		case weight > MostCompared:
			r.fail(baseline.at, at+".baseline", "at a weight of %d there is no room for a baseline as large as the canary; up to %d there is", weight, MostCompared)
		}
		for j, name := range analysis.get("queries").list() {
			for _, q := range f.get("analysis").get("queries").list() {
				if q.get("name").text() == name.scalar && !tells(q.get("queryTemplate").text()) {
					r.fail(name.at, fmt.Sprintf("%s.queries[%d]", at, j), "query %s asks the same of canary and baseline; its template has to name {{armory.replicaSetName}}", cut(name.scalar))
				}
			}
		}
	}
}

// tells reports whether a query asks for the numbers of one revision alone.
func tells(template string) (told bool) {
	Fill(template, func(name string) (string, bool) {
		told = told || strings.EqualFold(name, "armory.replicaSetName")
		return "", true
	})
	return told
}

// noBaselines refuses comparisons where no canary has a share.
func (r *reader) noBaselines(steps []*value, field string) {
	for i, step := range steps {
		if baseline := step.get("analysis").get("baseline"); baseline.isTrue() {
			r.fail(baseline.at, fmt.Sprintf("%s[%d].analysis.baseline", field, i), "only the steps of a canary can be compared with a baseline")
		}
	}
}
