package render

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"runtime/debug"
	"strings"

	"towpath/deployment"
	"towpath/manifest"
)

// Worker is the main function of a worker process: it renders one job after another until its input ends. All that it reads comes over the pipe.
func Worker(in io.Reader, out io.Writer) error {
	debug.SetGCPercent(400)
	http.DefaultTransport = noNetwork{} // libraries that read addresses do so with this; git they do not find, as the environment has no path
	w := &worker{out: bufio.NewWriterSize(out, 64<<10), frames: make(chan frame), sights: map[[sha256.Size]byte]finding{}}
	warm()
	if err := writeFrame(w.out, frameReady, nil); err != nil {
		return err
	}
	go w.listen(bufio.NewReaderSize(in, 64<<10))
	for {
		f, more := <-w.frames
		if !more {
			return nil
		}
		var j job
		if f.kind != frameJob {
			return fmt.Errorf("a job was expected, not %q", f.kind)
		}
		if err := json.Unmarshal(f.payload, &j); err != nil {
			return err
		}
		result, err := json.Marshal(w.render(j))
		if err != nil {
			return err
		}
		if err := writeFrame(w.out, frameDone, result); err != nil {
			return err
		}
	}
}

// noNetwork refuses what a library tries to fetch by itself.
type noNetwork struct{}

func (noNetwork) RoundTrip(r *http.Request) (*http.Response, error) {
	return nil, fmt.Errorf("%s is not in the repository; nothing is fetched while rendering, so copy it into the repository", r.URL)
}

// worker is a worker's side of the pipe.
type worker struct {
	out     *bufio.Writer
	frames  chan frame
	cluster Capabilities                  // that was asked for last
	over    error                         // why the job under way may read no more
	sights  map[[sha256.Size]byte]finding // by what a chart was made of
}

type frame struct {
	kind    frameKind
	payload []byte
}

// maxFrame is the largest frame a parent sends: a file or a chart.
const maxFrame = 256 << 20

// listen reads frames. When the parent is gone the process ends at once, whatever a template is doing.
func (w *worker) listen(in *bufio.Reader) {
	for {
		kind, payload, err := readFrame(in, maxFrame)
		if err != nil {
			os.Exit(0)
		}
		w.frames <- frame{kind, payload}
	}
}

// ask sends a request and waits for its answer.
func (w *worker) ask(kind frameKind, payload []byte) ([]byte, error) {
	if err := writeFrame(w.out, kind, payload); err != nil {
		return nil, err
	}
	f := <-w.frames
	switch f.kind {
	case frameGood:
		return f.payload, nil
	case frameGone:
		return nil, fs.ErrNotExist
	case frameOver:
		w.over = overLimit(f.payload)
		return nil, w.over
	}
	return nil, errors.New(string(f.payload))
}

func (w *worker) stat(name string) (p place, err error) {
	text, err := w.ask(frameStat, []byte(name))
	if err != nil {
		return p, err
	}
	return p, json.Unmarshal(text, &p)
}

func (w *worker) read(name string) ([]byte, error) { return w.ask(frameRead, []byte(name)) }

func (w *worker) list(name string) (items []item, err error) {
	text, err := w.ask(frameList, []byte(name))
	if err != nil {
		return nil, err
	}
	return items, json.Unmarshal(text, &items)
}

func (w *worker) chart(ref chartRef) ([]byte, error) {
	text, err := json.Marshal(ref)
	if err != nil {
		return nil, err
	}
	return w.ask(frameChart, text)
}

func (w *worker) fetch(address string) ([]byte, error) { return w.ask(frameFetch, []byte(address)) }

// capabilities of the target's cluster. They are long and seldom others than the last time, so they are sent only then.
func (w *worker) capabilities() (Capabilities, error) {
	text, err := w.ask(frameCluster, []byte(w.cluster.Digest()))
	if err != nil || len(text) == 0 {
		return w.cluster, err
	}
	w.cluster = Capabilities{}
	return w.cluster, json.Unmarshal(text, &w.cluster)
}

// render does one job. A library that panics costs this job only.
func (w *worker) render(j job) (out outcome) {
	w.over = nil
	r := &rendering{worker: w, job: j, target: j.File.Target(j.Target), unstable: map[source]bool{}}
	defer func() {
		if p := recover(); p != nil {
			out = outcome{Problems: []deployment.Problem{problem(j.File, "render of target %s broke off: %v", j.Target, p)}, Retire: true}
		}
	}()
	objects := r.all()
	out = outcome{Problems: r.problems, Retire: r.retire}
	for _, o := range objects {
		out.Objects = append(out.Objects, outObject{o.JSON, o.Source, r.unstable[source{o.Source, o.Kind, o.Name}]})
	}
	return out
}

// rendering is one job under way.
type rendering struct {
	*worker
	job      job
	target   *deployment.Target
	problems []deployment.Problem
	unstable map[source]bool
	retire   bool
}

// source tells the objects of a render apart before they have their namespaces.
type source struct{ source, kind, name string }

func (r *rendering) fail(at deployment.Position, field, format string, args ...any) {
	r.say(deployment.Error, at, field, format, args...)
}

func (r *rendering) warn(at deployment.Position, field, format string, args ...any) {
	r.say(deployment.Warning, at, field, format, args...)
}

func (r *rendering) say(severity deployment.Severity, at deployment.Position, field, format string, args ...any) {
	r.problems = append(r.problems, deployment.Problem{File: r.job.File.Path, Field: field, Line: max(at.Line, 1), Column: max(at.Column, 1),
		Severity: severity, Text: shortened(fmt.Sprintf(format, args...))})
}

// longest is how many bytes of a tool's words are told: a chart that includes itself says the same a thousand times.
const longest = 2000

func shortened(text string) string {
	if len(text) <= longest {
		return text
	}
	return strings.ToValidUTF8(text[:longest/2], "") + " … " + strings.ToValidUTF8(text[len(text)-longest/2:], "")
}

// all renders each entry of the file that is for the target.
func (r *rendering) all() []manifest.Object {
	var all []manifest.Object
	for i, m := range r.job.File.Manifests {
		if !m.Applies(r.target.Name) {
			continue
		}
		field := fmt.Sprintf("manifests[%d]", i)
		objects, err := r.entry(m, field)
		if err != nil {
			r.fail(m.Position, field, "%v", err)
			continue
		}
		all = append(all, objects...)
	}
	return r.finish(all)
}
