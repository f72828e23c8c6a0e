package deployment

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// check holds the file against the rules that its shape cannot say.
func (r *reader) check(f *value) {
	r.header(f)
	r.targets(f)
	r.references(f)
	r.manifests(f)
	for _, s := range f.get("strategies").named() {
		r.strategy(f, s.name, s.value)
	}
	r.analysis(f)
	r.webhooks(f)
	r.traffic(f)
	if timeout := f.get("deploymentConfig").get("timeout"); timeout.get("duration") != nil && timeout.get("unit") != nil && timeout.period() < time.Minute {
		r.fail(timeout.get("duration").at, "deploymentConfig.timeout", "the timeout is %s; at least 60 seconds", timeout.period())
	}
}

// named is the fields of an object or a map; none for nil.
func (v *value) named() []entry {
	if v == nil {
		return nil
	}
	return v.fields
}

func (v *value) list() []*value {
	if v == nil {
		return nil
	}
	return v.items
}

func (v *value) names() []string {
	var names []string
	for _, e := range v.named() {
		names = append(names, e.name)
	}
	return names
}

// text of a scalar; "" for nil.
func (v *value) text() string {
	if v == nil {
		return ""
	}
	return v.scalar
}

func (v *value) number() int {
	n, _ := strconv.Atoi(v.text()) // its shape was checked
	return n
}

func (v *value) isTrue() bool { return v.text() == "true" }

// period is duration and unit; the unit none counts as seconds.
func (v *value) period() time.Duration {
	unit := time.Second
	switch v.get("unit").text() {
	case "minutes":
		unit = time.Minute
	case "hours":
		unit = time.Hour
	}
	const most = 10 * 365 * 24 * time.Hour
	if n := time.Duration(v.get("duration").number()); n <= most/unit {
		return n * unit
	}
	return most
}

func (r *reader) header(f *value) {
	if version := f.get("version"); version != nil && version.scalar != "v1" {
		r.warn(version.at, "version", "version %s is not known; the file is read as v1", cut(version.scalar))
	}
	if kind := f.get("kind"); kind != nil && kind.scalar == "lambda" {
		r.fail(kind.at, "kind", "kind lambda is not supported; only kubernetes is deployed")
	}
}

func (r *reader) targets(f *value) {
	type place struct{ account, namespace string }
	first := map[place]string{}
	for _, t := range f.get("targets").named() {
		p := place{t.get("account").text(), t.get("namespace").text()}
		if other, taken := first[p]; taken && p.account != "" {
			r.warn(t.at, "targets."+t.name, "same account and namespace as target %s", other)
		} else {
			first[p] = t.name
		}
		strategy, field := t.get("strategy"), "targets."+t.name+".strategy"
		known := f.get("strategies").names()
		switch {
		case strategy == nil:
			r.warn(t.at, field, "no strategy; one is needed if a manifest of this target is a Deployment object")
		case !slices.Contains(known, strategy.scalar):
			r.add(Warning, strategy.at, field, Nearest(strategy.scalar, known), "no strategy %q; one is needed if a manifest of this target is a Deployment object", cut(strategy.scalar))
		}
		constraints := t.get("constraints")
		for _, name := range []string{"beforeDeployment", "afterDeployment"} {
			at := fmt.Sprintf("targets.%s.constraints.%s", t.name, name)
			r.steps(f, constraints.get(name).list(), at, false)
			r.noBaselines(constraints.get(name).list(), at)
		}
	}
	r.cycle(f)
}

// cycle reports the first cycle of dependsOn.
func (r *reader) cycle(f *value) {
	targets := f.get("targets")
	const open, done = 1, 2
	marks := map[string]int{}
	var visit func(name string, way []string) bool
	visit = func(name string, way []string) bool {
		way = append(way, name)
		switch marks[name] {
		case done:
			return false
		case open:
			start := slices.Index(way, name)
			on := targets.get(name).get("constraints").get("dependsOn")
			r.fail(on.keyAt, "targets."+name+".constraints.dependsOn", "dependsOn goes in a circle: %s", strings.Join(way[start:], " → "))
			return true
		}
		marks[name] = open
		for _, dependency := range targets.get(name).get("constraints").get("dependsOn").list() {
			if targets.get(dependency.scalar) != nil && visit(dependency.scalar, way) {
				return true
			}
		}
		marks[name] = done
		return false
	}
	for _, t := range targets.named() {
		if visit(t.name, nil) {
			return
		}
	}
}

// references are names of targets that must be there, and those that may be missing.
func (r *reader) references(f *value) {
	known := f.get("targets").names()
	missing := func(severity Severity, v *value, field, tail string) {
		if !slices.Contains(known, v.scalar) {
			r.add(severity, v.at, field, Nearest(v.scalar, known), "no target %q%s", cut(v.scalar), tail)
		}
	}
	for _, t := range f.get("targets").named() {
		for i, name := range t.get("constraints").get("dependsOn").list() {
			missing(Error, name, fmt.Sprintf("targets.%s.constraints.dependsOn[%d]", t.name, i), "")
		}
	}
	for i, filter := range f.get("targetFilters").list() {
		if name := filter.get("includeTarget"); name != nil {
			missing(Error, name, fmt.Sprintf("targetFilters[%d].includeTarget", i), "")
		}
	}
	for _, key := range []string{"manifests", "trafficManagement"} {
		for i, m := range f.get(key).list() {
			for j, name := range m.get("targets").list() {
				missing(Warning, name, fmt.Sprintf("%s[%d].targets[%d]", key, i, j), "; it is skipped")
			}
		}
	}
}

func (r *reader) manifests(f *value) {
	for i, m := range f.get("manifests").list() {
		field := fmt.Sprintf("manifests[%d]", i)
		var said []string
		for _, name := range []string{"path", "inline", "kustomize", "helm"} {
			if m.get(name) != nil {
				said = append(said, name)
			}
		}
		switch {
		case len(said) == 0 && !r.reported(field):
			r.fail(m.at, field, "a manifest is one of path, inline, kustomize, helm; this is none")
		case len(said) > 1:
			r.fail(m.get(said[1]).keyAt, field, "a manifest is one of path, inline, kustomize, helm; this is %s", strings.Join(said, " and "))
		}
		if helm := m.get("helm"); helm != nil {
			r.helm(helm, field+".helm")
		}
	}
}

func (r *reader) helm(h *value, field string) {
	chart, repository := h.get("chart").text(), h.get("repository").text()
	remote := repository != "" || strings.HasPrefix(chart, "oci://")
	switch {
	case chart == "" && h.get("path") == nil:
		r.fail(h.at, field, "a chart is needed: path in the Git repository, or chart with repository, or chart: oci://…")
	case remote && h.get("path") != nil:
		r.fail(h.at, field, "a chart comes from one place: path, or repository and chart")
	case remote && h.get("version").text() == "":
		r.fail(h.at, field+".version", "version is required for a chart that is not in the Git repository")
	case repository != "" && !strings.HasPrefix(repository, "https://") && !strings.HasPrefix(repository, "http://"):
		r.fail(h.get("repository").at, field+".repository", "a chart repository is an https:// address; a registry is written chart: oci://HOST/PATH")
	}
}

func (r *reader) strategy(f *value, name string, s *value) {
	field := "strategies." + name
	canary, blueGreen := s.get("canary"), s.get("blueGreen")
	switch {
	case canary == nil && blueGreen == nil && !r.reported(field):
		r.fail(s.at, field, "a strategy is canary or blueGreen; this is neither")
	case canary != nil && blueGreen != nil:
		r.fail(s.at, field, "a strategy is canary or blueGreen; this is both")
	}
	r.steps(f, canary.get("steps").list(), field+".canary.steps", true)
	r.baselines(f, canary.get("steps").list(), field+".canary.steps")
	for i, kind := range canary.get("workloads").list() {
		if slices.ContainsFunc(canary.get("workloads").list()[:i], func(o *value) bool { return o.scalar == kind.scalar }) {
			r.warn(kind.at, fmt.Sprintf("%s.canary.workloads[%d]", field, i), "%s is named twice", kind.scalar)
		}
	}
	for _, key := range []string{"redirectTrafficAfter", "shutDownOldVersionAfter"} {
		r.steps(f, blueGreen.get(key).list(), field+".blueGreen."+key, true)
		r.noBaselines(blueGreen.get(key).list(), field+".blueGreen."+key)
	}
}

// reported reports whether something is known to be wrong below a field already, so that what follows from it is not said as well.
func (r *reader) reported(field string) bool {
	return slices.ContainsFunc(r.problems, func(p Problem) bool {
		return p.Severity == Error && (p.Field == field || strings.HasPrefix(p.Field, field+".") || strings.HasPrefix(p.Field, field+"["))
	})
}

func (r *reader) steps(f *value, steps []*value, field string, strategy bool) {
	weight := -1
	for i, step := range steps {
		at := fmt.Sprintf("%s[%d]", field, i)
		if len(step.fields) != 1 {
			if !r.reported(at) {
				r.fail(step.at, at, "a step is exactly one of %s; this is %s", strings.Join(step.shape.names(), ", "), strings.Join(append(step.names(), "nothing")[:max(len(step.fields), 1)], " and "))
			}
			continue
		}
		only := step.fields[0]
		at += "." + only.name
		switch only.name {
		case "setWeight":
			if w := only.get("weight"); w != nil {
				if w.number() <= weight {
					r.warn(w.at, at, "weight %d does not rise: the step before has %d", w.number(), weight)
				}
				weight = w.number()
			}
		case "pause":
			r.pause(only.value, at)
		case "analysis":
			r.analysisStep(f, only.value, at)
		case "runWebhook":
			r.runWebhook(f, only.value, at)
		case "exposeServices":
			if ttl := only.get("ttl"); ttl != nil && (ttl.period() < time.Minute || ttl.period() > 24*time.Hour) {
				r.fail(ttl.at, at+".ttl", "ttl is %s; 1 minute to 24 hours", ttl.period())
			}
			for i, name := range only.get("services").strings() {
				if !serviceName.MatchString(name) {
					r.fail(only.at, fmt.Sprintf("%s.services[%d]", at, i), "%q is no name of a Service", cut(name))
				}
			}
		}
	}
}

var serviceName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

func (s *shape) names() []string {
	names := make([]string, len(s.keys))
	for i, k := range s.keys {
		names[i] = k.name
	}
	return names
}

func (r *reader) pause(p *value, field string) {
	approved, duration, unit := p.get("untilApproved"), p.get("duration"), p.get("unit")
	switch {
	case approved.isTrue() && duration != nil:
		r.warn(duration.keyAt, field+".duration", "duration beside untilApproved: true; the approval counts")
	case approved.isTrue():
	case duration != nil && unit == nil && !r.reported(field):
		r.fail(p.at, field+".unit", "unit is required beside duration: none, seconds, minutes, hours")
	case duration == nil && unit != nil && !r.reported(field):
		r.fail(p.at, field+".duration", "duration is required beside unit")
	case duration == nil && approved != nil:
		r.warn(approved.keyAt, field+".untilApproved", "untilApproved: false alone waits for nothing")
	case duration == nil && !r.reported(field):
		r.fail(p.at, field, "a pause needs duration and unit, or untilApproved: true")
	}
	if roles := p.get("requiresRoles"); roles != nil && len(roles.items) == 0 {
		r.warn(roles.at, field+".requiresRoles", "requiresRoles needs at least one role when given; as it is, anyone with access may approve")
	}
}

func (r *reader) analysisStep(f, step *value, field string) {
	unit, units := step.get("unit"), step.get("units")
	switch {
	case unit == nil && units == nil && !r.reported(field):
		r.fail(step.at, field+".units", "units is required beside interval: none, seconds, minutes, hours")
	case unit != nil && units != nil && unit.scalar != units.scalar:
		r.fail(unit.at, field+".unit", "unit and units differ; write units alone")
	}
	queries := f.get("analysis").get("queries").list()
	var known []string
	for _, q := range queries {
		known = append(known, q.get("name").text())
	}
	for i, name := range step.get("queries").list() {
		at := fmt.Sprintf("%s.queries[%d]", field, i)
		query := slices.Index(known, name.scalar)
		if query < 0 {
			r.add(Error, name.at, at, Nearest(name.scalar, known), "no query %q", cut(name.scalar))
			continue
		}
		if queries[query].get("metricProviderName") == nil && step.get("metricProviderName") == nil && f.get("analysis").get("defaultMetricProviderName") == nil {
			r.fail(name.at, at, "query %s has no metric provider; write metricProviderName at the query or the step, or analysis.defaultMetricProviderName", name.scalar)
		}
	}
}

func (r *reader) runWebhook(f, step *value, field string) {
	name := step.get("name")
	if name == nil {
		return
	}
	var known []string
	for _, w := range f.get("webhooks").list() {
		known = append(known, w.get("name").text())
	}
	if !slices.Contains(known, name.scalar) {
		r.add(Error, name.at, field+".name", Nearest(name.scalar, known), "no webhook %q", cut(name.scalar))
	}
}

func (r *reader) analysis(f *value) {
	seen := map[string]bool{}
	for i, q := range f.get("analysis").get("queries").list() {
		field := fmt.Sprintf("analysis.queries[%d]", i)
		if q.get("upperLimit") == nil && q.get("lowerLimit") == nil && !r.reported(field) {
			r.fail(q.at, field, "a query needs upperLimit or lowerLimit")
		}
		if name := q.get("name"); name != nil {
			if seen[name.scalar] {
				r.fail(name.at, field+".name", "a second query named %s", cut(name.scalar))
			}
			seen[name.scalar] = true
		}
	}
}

func (r *reader) webhooks(f *value) {
	seen := map[string]bool{}
	for i, w := range f.get("webhooks").list() {
		field := fmt.Sprintf("webhooks[%d]", i)
		name := w.get("name")
		if name != nil && seen[name.scalar] {
			r.warn(name.at, field+".name", "a second webhook named %s; the first counts", cut(name.scalar))
		}
		seen[name.text()] = true
		if agent := w.get("agentIdentifier"); agent != nil && w.get("networkMode").text() == "direct" {
			r.warn(agent.keyAt, field+".agentIdentifier", "agentIdentifier has no effect beside networkMode: direct")
		}
	}
}

func (r *reader) traffic(f *value) {
	kinds := []string{"kubernetes", "smi", "istio", "gateway"}
	seen := map[string]bool{}
	for i, t := range f.get("trafficManagement").list() {
		field := fmt.Sprintf("trafficManagement[%d]", i)
		any := false
		for _, kind := range kinds {
			if t.get(kind) == nil {
				continue
			}
			any = true
			targets := f.get("targets").names()
			if chosen := t.get("targets").list(); len(chosen) > 0 {
				targets = nil
				for _, name := range chosen {
					targets = append(targets, name.scalar)
				}
			}
			for _, target := range targets {
				if seen[kind+" "+target] {
					r.warn(t.get(kind).keyAt, field+"."+kind, "a second %s entry for target %s; this one counts", kind, target)
				}
				seen[kind+" "+target] = true
			}
		}
		if !any && !r.reported(field) {
			r.fail(t.at, field, "an entry needs one of %s", strings.Join(kinds, ", "))
		}
	}
}
