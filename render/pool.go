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

	"github.com/sirupsen/logrus"

	"towpath/deployment"
	"towpath/manifest"
)

// Fetcher brings charts that are not in the tree, from the sources that it allows, pinned by digest. Its error is a sentence for the file's author.
type Fetcher interface {
	Chart(ctx context.Context, repository, chart, version string) (archive []byte, digest string, err error)
}

// Config of a Pool.
type Config struct {
	Program []string // how a worker is started: a program that calls Worker, and its arguments
	Workers int      // 0: as many as processors
	Limits  Limits
	Fetcher Fetcher // nil: charts must be in the tree
	Log     *logrus.Entry
}

// Pool is the worker processes. Its methods may be called concurrently; Close ends the processes.
type Pool struct {
	config  Config
	limits  Limits
	slots   chan *process // a nil process is started when it is needed
	mu      sync.Mutex
	closed  bool
	started int
}

// NewPool makes a pool; it starts no process yet.
func NewPool(c Config) *Pool {
	if c.Workers == 0 {
		c.Workers = runtime.GOMAXPROCS(0)
	}
	p := &Pool{config: c, limits: c.Limits.orDefaults(), slots: make(chan *process, c.Workers)}
	for range c.Workers {
		p.slots <- nil
	}
	return p
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
		if w := <-p.slots; w != nil {
			w.end()
		}
	}
	return nil
}

// Render makes the manifests of a target. What is wrong with the files is among the result's problems; an error says that it could not be done now.
func (p *Pool) Render(ctx context.Context, r Request) (Result, error) {
	var w *process
	select {
	case w = <-p.slots:
	case <-ctx.Done():
		return Result{}, ctx.Err()
	}
	give := func(w *process) { p.slots <- w }
	if w == nil {
		var err error
		if w, err = p.start(); err != nil {
			give(nil)
			return Result{}, err
		}
	}
	result, reuse, err := p.run(ctx, w, r)
	if reuse {
		give(w)
	} else {
		w.end()
		give(nil)
	}
	return result, err
}

func (p *Pool) start() (*process, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errors.New("rendering was stopped")
	}
	w, err := start(p.config.Program)
	if err == nil {
		p.started++
	}
	return w, err
}

// run renders with one process. reuse is false when the process must not be used again.
func (p *Pool) run(ctx context.Context, w *process, r Request) (result Result, reuse bool, err error) {
	recorder := newRecorder(r.Tree, p.limits)
	watch := p.watch(ctx, w)
	out, served := p.serve(ctx, w, recorder, job{r.File, r.Target, r.Cluster, p.limits})
	why := watch()
	result.Trace = recorder.trace()
	switch {
	case ctx.Err() != nil:
		return result, false, ctx.Err()
	case why != "":
		result.Problems = []deployment.Problem{problem(r.File, "render of target %s was stopped: %s", r.Target, why)}
		return result, false, nil
	case served != nil:
		result.Problems = []deployment.Problem{problem(r.File, "render of target %s broke off: %s", r.Target, w.lastWords(served))}
		return result, false, nil
	}
	w.renders++
	result.Problems = out.Problems
	if !result.Failed() {
		result = p.take(r, out, result)
	}
	return result, !out.Retire && w.renders < p.limits.RendersPerRun, nil
}

func problem(file *deployment.File, format string, args ...any) deployment.Problem {
	return deployment.Problem{File: file.Path, Field: "manifests", Line: 1, Column: 1, Severity: deployment.Error, Text: fmt.Sprintf(format, args...)}
}

// take reads the objects anew: a worker is not believed.
func (p *Pool) take(r Request, out outcome, result Result) Result {
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

// serve sends the job and answers the worker's reads until it is done.
func (p *Pool) serve(ctx context.Context, w *process, recorder *recorder, j job) (out outcome, err error) {
	if err := writeJSON(w.in, frameJob, j); err != nil {
		return out, err
	}
	for {
		kind, payload, err := readFrame(w.out, 2*p.limits.OutputBytes)
		if err != nil {
			return out, err
		}
		switch kind {
		case frameDone:
			return out, json.Unmarshal(payload, &out)
		case frameStat:
			physical, dir, err := recorder.stat(string(payload))
			err = w.answer(place{physical, dir}, err)
			if err != nil {
				return out, err
			}
		case frameRead:
			text, err := recorder.read(string(payload))
			if err := w.answerBytes(text, err); err != nil {
				return out, err
			}
		case frameList:
			items, err := recorder.list(string(payload))
			if err := w.answer(items, err); err != nil {
				return out, err
			}
		case frameChart:
			text, err := p.chart(ctx, recorder, payload)
			if err := w.answerBytes(text, err); err != nil {
				return out, err
			}
		default:
			return out, fmt.Errorf("the worker said something that is no request: %q", kind)
		}
	}
}

// chart fetches a chart for the worker. Name and version are in the file, so what was fetched needs no record: a version is what it is.
func (p *Pool) chart(ctx context.Context, _ *recorder, payload []byte) ([]byte, error) {
	var ref chartRef
	if err := json.Unmarshal(payload, &ref); err != nil {
		return nil, err
	}
	if p.config.Fetcher == nil {
		return nil, fmt.Errorf("chart %s of %s is not in the Git repository, and nothing may be fetched here", ref.Chart, ref.Repository)
	}
	archive, _, err := p.config.Fetcher.Chart(ctx, ref.Repository, ref.Chart, ref.Version)
	return archive, err
}

// watch kills the process when it takes too much memory or time, or when ctx ends. stop returns why it was killed, "" when it was not.
func (p *Pool) watch(ctx context.Context, w *process) (stop func() (why string)) {
	done, killed := make(chan struct{}), make(chan string, 1)
	go func() {
		deadline := time.NewTimer(p.limits.Time)
		defer deadline.Stop()
		look := time.NewTicker(10 * time.Millisecond)
		defer look.Stop()
		why := ""
		for why == "" {
			select {
			case <-done:
				killed <- ""
				return
			case <-ctx.Done():
				why = "cancelled"
			case <-deadline.C:
				why = fmt.Sprintf("it took more than %s; a template that loops, or a render that is too large", p.limits.Time)
			case <-look.C:
				if memory := w.memory(); memory > p.limits.Memory {
					why = fmt.Sprintf("it took more than %d MiB of memory", p.limits.Memory>>20)
				}
			}
		}
		w.kill()
		killed <- why
	}()
	return func() string {
		close(done)
		return <-killed
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
	return w, nil
}

func (w *process) answer(v any, err error) error {
	if err != nil {
		return w.answerBytes(nil, err)
	}
	return writeJSON(w.in, frameGood, v)
}

func (w *process) answerBytes(text []byte, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return writeFrame(w.in, frameGone, nil)
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

// memory of the process in bytes, as the kernel counts it; 0 where that cannot be known.
func (w *process) memory() int64 {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(w.command.Process.Pid) + "/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
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
	return "its process ended: " + err.Error()
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
