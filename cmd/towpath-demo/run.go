package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"towpath/api"
	"towpath/api/client"
	"towpath/deployment"
)

// run is what people see. Should they end it, or with CI=true, nothing is left running.
func (d *demo) run(ctx context.Context) error {
	ci := os.Getenv("CI") == "true"
	if ci {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, patience, fmt.Errorf("it was not done after %s", patience))
		defer cancel()
	}
	err := d.show(ctx)
	if ctx.Err() != nil {
		err = context.Cause(ctx) // what else went wrong comes of that: a command of git that was ended, a request that was broken off
	}
	if pid, _, held := d.holder(); err != nil && held == nil && pid == 0 && ctx.Err() == nil {
		return d.ended(err)
	}
	if ci || ctx.Err() != nil {
		fmt.Println()
		_, stopping := d.stop()
		err = errors.Join(err, stopping)
	}
	return err
}

// patience is how long a demo may take that nobody watches.
const patience = 10 * time.Minute

// show starts what does not run, merges a change and shows how it rolls out.
func (d *demo) show(ctx context.Context) error {
	if _, err := exec.LookPath("git"); err != nil {
		return errors.New("git is needed; install it and run make demo again")
	}
	fmt.Println("Towpath: a merge reaches staging, and prod once staging is well.")
	r, err := d.find()
	if err == nil {
		fmt.Println("\nThe demo of before still runs.")
	} else if r, err = d.begin(ctx); err != nil {
		return err
	}
	c, err := r.client()
	if err != nil {
		return err
	}
	if err := d.settled(ctx, c); err != nil {
		return err
	}
	version, err := d.merge(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("\nA change of examples/hello is merged to main: version %s\n", version)
	if err := d.watch(ctx, c); err != nil {
		return err
	}
	if err := d.tell(ctx, r); err != nil {
		return err
	}
	return d.verdict(ctx, c)
}

func (d *demo) begin(ctx context.Context) (running, error) {
	needs := "It needs about 1.5 GB of memory and 500 MB of disk below " + near(d.dir) + "; no Docker, no root."
	if len(d.kubeconfigs) > 0 {
		needs = "It makes the namespaces " + strings.Join(namespaces, ", ") + " in your clusters, and a ServiceAccount that may write in them and nowhere else."
	}
	fmt.Printf("%s\n\nStarting (half a minute at first, seconds later):\n", needs)
	return d.start(ctx)
}

// settled waits until what is in the repository from before is out, and says how each application got on and what one waits for.
func (d *demo) settled(ctx context.Context, c *client.Client) error {
	told := map[string]bool{}
	once := func(format string, args ...any) {
		if line := fmt.Sprintf(format, args...); !told[line] {
			if len(told) == 0 {
				fmt.Println("\nWhat is in the repository already:")
			}
			told[line] = true
			fmt.Println("  " + line)
		}
	}
	return poll(ctx, func() (bool, error) {
		head, err := d.head(ctx)
		if err != nil {
			return false, err
		}
		sources, err := sourcesOf(ctx, c)
		if err != nil || len(sources) == 0 || sources[0].Processed != head {
			return false, err
		}
		newest, err := newest(ctx, c)
		settled := true
		for _, n := range newest {
			for _, t := range n.Targets {
				for _, w := range t.Waits {
					if time.Since(w.Since) > 5*time.Second {
						once("%-8s waits on %s for %s  %s", n.Application, t.Name, w.Needs, w.Command)
					}
				}
			}
			if n.Ended == nil {
				settled = false
				continue
			}
			once("%-8s %s on %s", n.Application, n.State, strings.Join(names(n), ", "))
			for _, t := range n.Targets {
				if t.State != "SUCCEEDED" {
					once("%-8s %s is %s: %s", n.Application, t.Name, t.State, t.Why)
				}
			}
		}
		return settled, err
	})
}

func names(d api.Deployment) (all []string) {
	for _, t := range d.Targets {
		all = append(all, t.Name)
	}
	return all
}

func sourcesOf(ctx context.Context, c *client.Client) ([]api.Source, error) {
	var found struct{ Items []api.Source }
	return found.Items, c.Call(ctx, http.MethodGet, "/sources", nil, &found)
}

// newest is the last deployment of each application, by name.
func newest(ctx context.Context, c *client.Client) (all []api.Deployment, err error) {
	var applications struct{ Items []api.Application }
	if err := c.Call(ctx, http.MethodGet, "/applications", nil, &applications); err != nil {
		return nil, err
	}
	for _, a := range applications.Items {
		if a.Removed {
			continue
		}
		var found struct{ Items []api.Deployment }
		if err := c.Call(ctx, http.MethodGet, "/deployments?limit=1&application="+url.QueryEscape(a.Name), nil, &found); err != nil {
			return nil, err
		}
		all = append(all, found.Items...)
	}
	slices.SortFunc(all, func(a, b api.Deployment) int { return cmp.Compare(a.Application, b.Application) })
	return all, nil
}

func poll(ctx context.Context, done func() (bool, error)) error {
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// watch shows the deployment of hello that the merge started, until it is done. How it ended is in the last line, and in the verdict.
func (d *demo) watch(ctx context.Context, c *client.Client) error {
	head, err := d.head(ctx)
	if err != nil {
		return err
	}
	var merged api.Deployment
	if err := poll(ctx, func() (bool, error) {
		sources, _ := sourcesOf(ctx, c) // before the deployments: what a commit starts is there once it counts as processed
		taken := len(sources) > 0 && sources[0].Processed == head
		var found struct{ Items []api.Deployment }
		err := c.Call(ctx, http.MethodGet, "/deployments?application=hello&commit="+head, nil, &found)
		if err == nil && len(found.Items) > 0 {
			merged = found.Items[0]
			return true, nil
		}
		if err == nil && taken {
			return false, errors.Join(append([]error{errors.New("the merge started nothing")}, problems(sources)...)...)
		}
		return false, err
	}); err != nil {
		return err
	}
	for last := int64(0); ; {
		over := false
		err := c.Follow(ctx, merged.ID, last, func(e api.Event) bool {
			last, over = e.ID, e.Kind == "deployment.state" && final(e.What)
			fmt.Println(line(e, merged.Created))
			return !over
		})
		if over || err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
	}
}

// line is an event as it is shown: seconds since the merge, what, and why.
func line(e api.Event, began time.Time) string {
	text := fmt.Sprintf("  %5.1f s  %s", e.At.Sub(began).Seconds(), e.What)
	if e.Why != "" {
		text += ": " + e.Why
	}
	return text
}

func final(what string) bool {
	return strings.HasSuffix(what, " SUCCEEDED") || strings.HasSuffix(what, " FAILED") || strings.HasSuffix(what, " CANCELLED")
}

// verdict is an error when anything in the repository did not come out well.
func (d *demo) verdict(ctx context.Context, c *client.Client) error {
	sources, err := sourcesOf(ctx, c)
	if err != nil {
		return err
	}
	newest, err := newest(ctx, c)
	if err != nil {
		return err
	}
	wrong := problems(sources)
	for _, n := range newest {
		if n.State == "SUCCEEDED" {
			continue
		}
		text := fmt.Sprintf("%s #%d is %s", n.Application, n.Number, n.State)
		for _, t := range n.Targets {
			if t.State != "SUCCEEDED" {
				text += fmt.Sprintf("\n  %s is %s: %s", t.Name, t.State, t.Why)
			}
		}
		wrong = append(wrong, errors.New(text))
	}
	if len(wrong) > 0 {
		return errors.Join(append(append([]error{errors.New("not everything succeeded")}, wrong...), fmt.Errorf("mend the files in %s, commit, push, and run make demo again", near(d.work())))...)
	}
	return nil
}

func problems(sources []api.Source) (wrong []error) {
	for _, s := range sources {
		for _, p := range s.Problems {
			if p.Severity == deployment.Error {
				wrong = append(wrong, fmt.Errorf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Text))
			}
		}
	}
	return wrong
}
