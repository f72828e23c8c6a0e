package rollout

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"towpath/deployment"
)

// Call is one thing that a step asks of the world outside: a webhook to be called, or one measurement of a query. It is recorded with the decision that asks
// for it, made by whoever takes it next, and known by target, gate, name, run and whom it is of: the same one may be made twice, always under the same key.
type Call struct {
	ID     string            `json:"-"` // its key, which the store gives; "": it is not recorded yet
	Gate   string            `json:"gate"`
	Kind   CallKind          `json:"kind"`
	Name   string            `json:"name"`           // of the webhook, or of the query
	Run    int               `json:"run,omitempty"`  // of an analysis, from 1; 0: of a webhook
	Of     string            `json:"of,omitempty"`   // of a measurement: name of the baseline that is measured; "": the new version is
	Try    int               `json:"try"`            // from 1
	At     time.Time         `json:"at"`             // this try was asked for
	From   time.Time         `json:"from,omitzero"`  // of a measurement: the beginning of what it looks at
	Until  time.Time         `json:"until,omitzero"` // and its end
	Look   time.Time         `json:"look,omitzero"`  // a good answer is looked at then, and wakes nobody before; zero: each wakes its lane
	Query  *Query            `json:"query,omitempty"`
	Values map[string]string `json:"values"` // of the variables in what is sent, as far as they are decided here

	Answer   *Answer   `json:"-"` // to this try; nil: there is none yet
	Callback *Callback `json:"-"` // of a webhook: what it called back with; nil: it did not
}

// CallKind says what is called.
type CallKind string

// Kinds of call.
const (
	CallWebhook CallKind = "webhook"
	CallQuery   CallKind = "query"
)

// Answer is what one try came to.
type Answer struct {
	At     time.Time `json:"at"`
	Result Result    `json:"result"`
	Value  float64   `json:"value,omitempty"` // of a measurement that has one
	Text   string    `json:"text,omitempty"`  // what went wrong, or what the other side said
	Sent   string    `json:"sent,omitempty"`  // of a measurement: the query as it was sent
	// Unfilled is the variables of what was sent that nothing filled, as deployment.Fill lists them.
	Unfilled []string `json:"unfilled,omitempty"`
}

// unfilled ends a sentence on an answer: what nothing filled may well be why it is none. "" where all was filled.
func (a *Answer) unfilled() string {
	if a == nil || len(a.Unfilled) == 0 {
		return ""
	}
	return "; " + deployment.Unfilled(a.Unfilled)
}

// Result of a try.
type Result string

// Results.
const (
	Answered     Result = "answered"
	Unanswered   Result = "unanswered" // it could not be reached, or is in trouble: worth another try
	TurnedDown   Result = "turnedDown" // the same call would be turned down again
	WithoutValue Result = "noData"     // of a measurement: there is nothing to judge
)

// early is how long before it is looked at an answer must come to wake nobody: clocks of replicas differ.
const early = 2 * time.Second

// Wakes reports whether an answer that comes now wakes its lane.
func (a Answer) Wakes(c Call, now time.Time) bool {
	good := a.Result == Answered || a.Result == WithoutValue
	return !good || !now.Before(c.Look.Add(-early))
}

// Callback is what a webhook that was called says of what it has done.
type Callback struct {
	At      time.Time `json:"at"`
	Success bool      `json:"success"`
	Message string    `json:"message,omitempty"` // Markdown, for people
}

// On is the line of history of a callback to a call of a target; a *Refusal when it comes too late, or is not the first.
func (b Callback) On(c Call, t Target) (Event, error) {
	switch {
	case c.Kind != CallWebhook:
		return Event{}, NoCallback()
	case c.Callback != nil:
		return Event{}, Refuse(Conflicts, "webhook %s has called back already; the first time counts", c.Name)
	case !t.Awaits(c):
		return Event{}, Refuse(Conflicts, "nobody waits for webhook %s any more: target %s of deployment %s is %s", c.Name, t.Name, t.Deployment, t.State)
	}
	said := "called back: success"
	if !b.Success {
		said = "called back: failure"
	}
	return Event{At: b.At, Tenant: t.Tenant, Application: t.Application, Deployment: t.Deployment, Target: t.Name, Who: "webhook " + c.Name,
		Kind: "target.called_back", What: t.Name + ": webhook " + c.Name + " " + said, Why: b.short()}, nil
}

// shortened is how much of a callback's message is told where there is room for a line; all of it is with the call.
const shortened = 300

// short is the message as a line.
func (b Callback) short() string {
	text := []rune(strings.Join(strings.Fields(b.Message), " "))
	if len(text) > shortened {
		return string(text[:shortened]) + "…"
	}
	return string(text)
}

// NoCallback is what a stranger is told who calls back.
func NoCallback() error {
	return Refuse(Missing, "no webhook was called with this callback address")
}

const (
	callPatience    = 2 * time.Minute // an answer that is not there after so long was lost with whoever made the call
	callbackExpires = 24 * time.Hour
	queryTries      = 4 // of one measurement, by which a metrics server has 7 s to restart
)

// CallsOut reports whether any step of a way asks something of the world outside.
func (w Way) CallsOut() bool {
	return slices.ContainsFunc(w.steps(), func(s Step) bool { return s.Webhook != nil || s.Analysis != nil })
}

// steps is all of a way.
func (w Way) steps() []Step {
	all := slices.Concat(w.Before, w.Canary, w.After)
	if w.BlueGreen != nil {
		all = slices.Concat(all, w.BlueGreen.Redirect, w.BlueGreen.ShutDown)
	}
	return all
}

// Asked is a call that is to be made, and all that is known of whom it is made for.
type Asked struct {
	Call
	Target Target
	Source string // of the deployment; "": it was pushed
	Path   string // of its file
	File   []byte // of a webhook: in which it is
	// Links is the random part of the newest link to each Service of the target that has one which holds.
	Links map[string]string
}

// Awaits reports whether what becomes of a call still means something to the target.
func (t Target) Awaits(c Call) bool {
	return !t.HeldSince.IsZero() || slices.ContainsFunc(t.Waits, func(w Wait) bool {
		return w.Gate == c.Gate && (w.Kind == WaitWebhook || w.Kind == WaitAnalysis)
	})
}

// called is a call that was asked for; nil: it was not.
func (d *decision) called(gate, name string, run int, of string) *Call {
	for i, c := range d.f.Calls {
		if c.Gate == gate && c.Name == name && c.Run == run && c.Of == of {
			return &d.f.Calls[i]
		}
	}
	return nil
}

// call asks for a try, once in a decision.
func (d *decision) call(v *verdict, c Call) {
	c.At = d.f.Now
	v.wake(d.f.Now.Add(callPatience))
	if slices.ContainsFunc(d.Calls, func(o Call) bool { return o.Gate == c.Gate && o.Name == c.Name && o.Run == c.Run && o.Of == c.Of }) {
		return
	}
	d.Calls, d.Changed = append(d.Calls, c), true
}

// answer is what a call came to; nil: it is still to be answered, and is asked again where its answer was lost or another try is worth it.
func (d *decision) answer(v *verdict, c Call, tries int) *Answer {
	switch {
	case c.Answer == nil && d.f.Now.Before(c.At.Add(callPatience)):
		v.wake(c.At.Add(callPatience))
	case c.Answer == nil:
		d.call(v, c)
	case c.Answer.Result == Unanswered && c.Try < tries:
		if again := c.Answer.At.Add(backoff(c.Try)); d.f.Now.Before(again) {
			v.wake(again)
			return nil
		}
		c.Try++
		d.call(v, c)
	default:
		return c.Answer
	}
	return nil
}

// webhook calls a webhook, and waits for its callback.
func (d *decision) webhook(v *verdict, gate string, w Webhook) {
	wait := func(needs string, until time.Time) {
		if !until.IsZero() {
			v.wake(until)
		}
		v.waits = append(v.waits, Wait{Kind: WaitWebhook, Gate: gate, Until: until, Needs: needs, Command: d.command("skip")})
	}
	c := d.called(gate, w.Name, 0, "")
	if c == nil {
		d.call(v, Call{Gate: gate, Kind: CallWebhook, Name: w.Name, Try: 1, Values: d.values(w.Context)})
		wait(fmt.Sprintf("webhook %s to answer", w.Name), time.Time{})
		return
	}
	if c.Callback != nil {
		if !c.Callback.Success {
			v.fail(fmt.Sprintf("%s: webhook %s called back that it failed", gate, w.Name)+because(c.Callback.short())+c.Answer.unfilled(), false)
		}
		return
	}
	answer := d.answer(v, *c, w.Retries+1)
	switch {
	case answer == nil:
		needs := fmt.Sprintf("webhook %s to answer", w.Name)
		if c.Answer != nil {
			needs += fmt.Sprintf(", which failed %d of %d times: %s", c.Try, w.Retries+1, c.Answer.Text+c.Answer.unfilled())
		}
		wait(needs, time.Time{})
	case answer.Result != Answered:
		v.fail(fmt.Sprintf("%s: webhook %s: %s", gate, w.Name, answer.Text+answer.unfilled()), false)
	case w.NoCallback:
	case !d.f.Now.Before(c.At.Add(callbackExpires)):
		v.fail(fmt.Sprintf("%s: webhook %s did not call back within %s", gate, w.Name, callbackExpires)+answer.unfilled(), false)
	default:
		wait(fmt.Sprintf("webhook %s to call back", w.Name)+answer.unfilled(), c.At.Add(callbackExpires))
	}
}

func (d *decision) values(context map[string]string) map[string]string {
	return d.Target.Values(d.f.New, context)
}

// Values of variables: the context's, and what is known of the target, whose manifests are called so. Without a ReplicaSet among those it has no name.
func (t Target) Values(set Set, context map[string]string) map[string]string {
	values := map[string]string{"armory.applicationName": t.Application, "armory.deploymentId": t.Deployment, "armory.environmentName": t.Name, "armory.accountName": t.Account}
	namespace := t.Namespace
	if len(set.Revisions) > 0 {
		revision := set.Revisions[0].ReplicaSet
		values["armory.replicaSetName"] = revision.Name
		namespace = cmp.Or(namespace, revision.Namespace)
	}
	if namespace != "" {
		values["armory.namespace"] = namespace
	}
	for name, text := range context {
		values["context."+name] = text
	}
	return values
}

// Window adds the variables of what a measurement looks at.
func Window(values map[string]string, from, until time.Time) map[string]string {
	values = maps.Clone(values)
	for name, at := range map[string]time.Time{"startTime": from, "endTime": until} {
		values["armory."+name+"Iso8601"] = at.UTC().Format(time.RFC3339)
		values["armory."+name+"EpochSeconds"] = strconv.FormatInt(at.Unix(), 10)
		values["armory."+name+"EpochMillis"] = strconv.FormatInt(at.UnixMilli(), 10)
	}
	lasts := max(until.Sub(from), time.Second)
	values["armory.intervalSeconds"] = strconv.FormatInt(int64(lasts.Seconds()), 10)
	values["armory.intervalMillis"] = strconv.FormatInt(lasts.Milliseconds(), 10)
	values["armory.promQlStepInterval"] = strconv.FormatInt(int64(lasts.Seconds()), 10) + "s"
	return values
}
