package render

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"towpath/deployment"
	"towpath/manifest"
)

// fetcher brings what is not in the tree, from the hosts that it allows a tenant, pinned by digest. Its errors are sentences for the file's author.
type fetcher interface {
	Chart(ctx context.Context, tenant, repository, chart, version string) (archive []byte, digest string, err error)
	// File is what stands at an address; later calls with the same pin give the same.
	File(ctx context.Context, tenant, pin, address string) (text []byte, digest string, err error)
}

// firsts keeps the first results of templates that come out differently each time.
type firsts interface {
	// Keep keeps content under a name, unless something is kept there already, and returns what is kept.
	Keep(ctx context.Context, name string, content []byte) (kept []byte, err error)
}

// Config of a Pool.
type Config struct {
	Program []string // how a worker is started: a program that calls Worker, and its arguments
	Workers int      // 0: as many as processors, and at least two, so that one that hangs delays nobody
	Limits  Limits
	Fetcher fetcher // nil: all must be in the tree
	Firsts  firsts  // nil: allowUnstable gives another result each time
}

// Pool is the worker processes. Its methods may be called concurrently; Close ends the processes.
type Pool struct {
	config  Config
	limits  Limits
	slots   chan struct{} // one in it for each process that may run
	turns   turns
	mu      sync.Mutex
	idle    []*process // the last one used is the first one used again: it is warm, and the others may sleep
	closed  bool
	started int
}

// NewPool makes a pool; it starts no process yet.
func NewPool(c Config) *Pool {
	if c.Workers == 0 {
		c.Workers = max(2, runtime.GOMAXPROCS(0))
	}
	return &Pool{config: c, limits: c.Limits.orDefaults(), slots: make(chan struct{}, c.Workers), turns: turns{most: max(1, c.Workers/2), files: map[string]*turn{}}}
}

// Started is how many processes were started so far.
func (p *Pool) Started() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.started
}

// Close ends the processes, once the renders under way are done.
func (p *Pool) Close() error {
	p.mu.Lock()
	closed := p.closed
	p.closed = true
	p.mu.Unlock()
	if closed {
		return nil
	}
	for range cap(p.slots) {
		p.slots <- struct{}{}
	}
	for _, w := range p.idle {
		w.end()
	}
	return nil
}

// Warm starts a process, so that the first render need not wait for one.
func (p *Pool) Warm(ctx context.Context) error {
	w, err := p.take(ctx)
	if err == nil {
		p.give(w, true)
	}
	return err
}

// Render makes the manifests of a target. What is wrong with the files is among the result's problems; an error says that it could not be done now.
func (p *Pool) Render(ctx context.Context, r Request) (Result, error) {
	outside := p.outside(ctx, r)
	if ctx.Err() != nil {
		return Result{}, ctx.Err()
	}
	leave, err := p.turns.wait(ctx, r.File.Path)
	if err != nil {
		return Result{}, err
	}
	defer leave()
	w, err := p.take(ctx)
	if err != nil {
		return Result{}, err
	}
	result, reuse, err := p.run(ctx, w, r, outside)
	p.give(w, reuse)
	return result, err
}

// take waits for a process; give lets others have it.
func (p *Pool) take(ctx context.Context) (*process, error) {
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	w, err := p.ready()
	if err != nil {
		<-p.slots
	}
	return w, err
}

func (p *Pool) ready() (*process, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, errors.New("rendering was stopped")
	}
	if last := len(p.idle) - 1; last >= 0 {
		w := p.idle[last]
		p.idle = p.idle[:last]
		p.mu.Unlock()
		return w, nil
	}
	p.started++
	p.mu.Unlock()
	return start(p.config.Program)
}

func (p *Pool) give(w *process, reuse bool) {
	if reuse {
		p.mu.Lock()
		p.idle = append(p.idle, w)
		p.mu.Unlock()
	} else {
		w.end()
	}
	<-p.slots
}

// run renders with one process. reuse is false when the process must not be used again.
func (p *Pool) run(ctx context.Context, w *process, r Request, outside map[string]brought) (result Result, reuse bool, err error) {
	recorder := newRecorder(r.Tree, p.limits)
	watch := p.watch(ctx, w)
	out, served := serving{w, recorder, r, outside}.serve(job{r.File, r.Target, p.limits}, 2*p.limits.OutputBytes)
	why, passing := watch()
	result.Trace = recorder.trace()
	switch {
	case ctx.Err() != nil:
		return result, false, ctx.Err()
	case why != "":
		result.Problems = []deployment.Problem{problem(r.File, "render of target %s was stopped: %s", r.Target, why)}
		result.Trace.Retry = result.Trace.Retry || passing
		return result, false, nil
	case served != nil:
		result.Problems = []deployment.Problem{problem(r.File, "render of target %s broke off: %s", r.Target, w.lastWords(served))}
		return result, false, nil
	}
	w.renders++
	result.Problems = out.Problems
	for _, warning := range recorder.attributes.warnings {
		said := problem(r.File, "%s", warning)
		said.Severity = deployment.Warning
		result.Problems = append(result.Problems, said)
	}
	if !result.Failed() {
		if out.Objects, err = p.first(ctx, r, result.Trace, out.Objects); err != nil {
			return result, true, err
		}
		result = adopt(r, out, result)
	}
	if !result.Failed() {
		result = reveal(r, recorder.encrypted, p.limits, result)
	}
	return result, !out.Retire && w.renders < p.limits.RendersPerRun, nil
}

func problem(file *deployment.File, format string, args ...any) deployment.Problem {
	return deployment.Problem{File: file.Path, Field: "manifests", Line: 1, Column: 1, Severity: deployment.Error, Text: fmt.Sprintf(format, args...)}
}

// adopt reads the objects anew: a worker is not believed.
func adopt(r Request, out outcome, result Result) Result {
	for _, o := range out.Objects {
		object, err := manifest.New(o.JSON, o.Source)
		if err != nil {
			result.Problems = append(result.Problems, problem(r.File, "%v", err))
			continue
		}
		result.Objects = append(result.Objects, object)
	}
	if result.Failed() {
		result.Objects = nil
		return result
	}
	result.Digest = manifest.Digest(result.Objects)
	return result
}

// serving is one render under way, seen from the parent.
type serving struct {
	*process
	*recorder
	request Request
	outside map[string]brought
}

// serve sends the job and answers the worker's questions until it is done.
func (s serving) serve(j job, most int64) (out outcome, err error) {
	if err := writeJSON(s.in, frameJob, j); err != nil {
		return out, err
	}
	for {
		kind, payload, err := readFrame(s.out, most)
		if err != nil {
			return out, err
		}
		if kind == frameDone {
			return out, json.Unmarshal(payload, &out)
		}
		if err := s.reply(kind, payload); err != nil {
			return out, err
		}
	}
}

func (s serving) reply(kind frameKind, payload []byte) error {
	switch kind {
	case frameStat:
		physical, dir, err := s.stat(string(payload))
		return s.answer(place{physical, dir}, err)
	case frameRead:
		text, err := s.read(string(payload))
		return s.answerBytes(text, err)
	case frameList:
		items, err := s.list(string(payload))
		return s.answer(items, err)
	case frameChart:
		var ref chartRef
		if err := json.Unmarshal(payload, &ref); err != nil {
			return err
		}
		return s.bring(ref.String(), ref.String())
	case frameFetch:
		return s.bring(string(payload), shownAddress(string(payload)))
	case frameCluster:
		return s.capabilities(string(payload))
	}
	return fmt.Errorf("the worker said something that is no request: %q", kind)
}

// capabilities tells a worker of the cluster, unless it knows already.
func (s serving) capabilities(known string) error {
	s.recorder.account = s.request.File.Target(s.request.Target).Account
	s.recorder.cluster = s.request.Cluster.Digest()
	if known == s.recorder.cluster {
		return s.answerBytes(nil, nil)
	}
	return s.answer(s.request.Cluster, nil)
}

// slowness is how much longer than its processor time a render may take by the clock: a machine may be busy with others.
const slowness = 6

// watch kills the process when it takes too much memory or time, or when ctx ends. stop returns why it was killed, "" when it was not, and whether the
// reason may have passed the next time.
func (p *Pool) watch(ctx context.Context, w *process) (stop func() (why string, passing bool)) {
	done, killed := make(chan struct{}), make(chan struct{})
	var why string
	var passing bool
	before := w.usage()
	go func() {
		defer close(killed)
		deadline := time.NewTimer(slowness * p.limits.Time)
		defer deadline.Stop()
		look := time.NewTicker(10 * time.Millisecond)
		defer look.Stop()
		for why == "" {
			select {
			case <-done:
				return
			case <-ctx.Done():
				why = "cancelled"
			case <-deadline.C:
				why, passing = fmt.Sprintf("it took more than %s by the clock; this machine has too much to do", slowness*p.limits.Time), true
			case <-look.C:
				now := w.usage()
				switch {
				case now.memory > p.limits.Memory:
					why = fmt.Sprintf("it took more than %d MiB of memory", p.limits.Memory>>20)
				case now.time-before.time > p.limits.Time:
					why = fmt.Sprintf("it took more than %s; a template that loops, or a render that is too large", p.limits.Time)
				}
			}
		}
		w.kill()
	}()
	return func() (string, bool) {
		close(done)
		<-killed
		return why, passing
	}
}

// process is one worker.
type process struct {
	command *exec.Cmd
	in      *bufio.Writer
	out     *bufio.Reader
	pipe    io.Closer
	words   *tail
	renders int
}

// start runs the program with an empty environment, in a directory without meaning to it.
func start(program []string) (*process, error) {
	w := &process{command: exec.Command(program[0], program[1:]...), words: &tail{}}
	w.command.Env, w.command.Dir, w.command.Stderr = []string{}, os.TempDir(), w.words
	in, err := w.command.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := w.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	w.pipe, w.in, w.out = in, bufio.NewWriterSize(in, 64<<10), bufio.NewReaderSize(out, 64<<10)
	if err := w.command.Start(); err != nil {
		return nil, fmt.Errorf("a render process could not be started: %w", err)
	}
	if kind, _, err := readFrame(w.out, 0); err != nil || kind != frameReady {
		w.end()
		return nil, fmt.Errorf("a render process did not come up: %s", w.lastWords(err))
	}
	return w, nil
}

func (w *process) answer(v any, err error) error {
	if err != nil {
		return w.answerBytes(nil, err)
	}
	return writeJSON(w.in, frameGood, v)
}

func (w *process) answerBytes(text []byte, err error) error {
	var over overLimit
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return writeFrame(w.in, frameGone, nil)
	case errors.As(err, &over):
		return writeFrame(w.in, frameOver, []byte(over))
	case err != nil:
		return writeFrame(w.in, frameBad, []byte(err.Error()))
	}
	return writeFrame(w.in, frameGood, text)
}

func (w *process) kill() { w.command.Process.Kill() }

// end makes the process end and waits for that. A worker ends by itself when its input does; one that does not listen is killed.
func (w *process) end() {
	w.pipe.Close()
	w.kill()
	w.command.Wait()
}

// usage is what a process takes: memory in bytes, and time of processors since it began.
type usage struct {
	memory int64
	time   time.Duration
}

// usage as the kernel counts it; zero where that cannot be known.
func (w *process) usage() (u usage) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(w.command.Process.Pid) + "/stat")
	if err != nil {
		return u
	}
	// What stands before is the program's name, which may hold anything. Fields 14, 15 and 24 of proc(5): ticks of a hundredth of a second, pages.
	_, after, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(after)
	if len(fields) < 22 {
		return u
	}
	number := func(field int) int64 {
		n, err := strconv.ParseInt(fields[field-3], 10, 64)
		if err != nil {
			return 0
		}
		return n
	}
	return usage{number(24) * int64(os.Getpagesize()), time.Duration(number(14)+number(15)) * 10 * time.Millisecond}
}

// lastWords is why the process ended, as far as it said.
func (w *process) lastWords(err error) string {
	if words := w.words.firstLine(); words != "" {
		return words
	}
	var frame errFrame
	if errors.As(err, &frame) {
		return "its result is too large: " + frame.Error()
	}
	return fmt.Sprintf("its process ended: %v", err)
}

// tail keeps the first few kilobytes that a process writes to its standard error.
type tail struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if room := 4096 - t.text.Len(); room > 0 {
		t.text.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

func (t *tail) firstLine() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	line, _, _ := strings.Cut(strings.TrimSpace(t.text.String()), "\n")
	return line
}
