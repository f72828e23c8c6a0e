package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"towpath/internal/testkit/genrepo"
)

// push is how soon after its webhook the first object of a commit is in the cluster. The commit changes the image of one application of a generated
// repository; the time is that of the API server's audit log.
func push(ctx context.Context, b *bench) error {
	for _, apps := range []int{1, b.count(1000)} {
		name := fmt.Sprintf("push-%d", apps)
		err := pushInto(ctx, b, name, apps)
		b.remove(name)
		if err != nil {
			return err
		}
	}
	return nil
}

func pushInto(ctx context.Context, b *bench, name string, apps int) error {
	repository, index, err := b.generated(ctx, name, apps)
	if err != nil {
		return err
	}
	var all, teams []string
	for _, app := range index.Apps {
		all = append(all, app.Name+"/dev")
		if !slices.Contains(teams, app.Team) {
			teams = append(teams, app.Team)
		}
	}
	began := time.Now()
	s, err := b.install(ctx, name, repository, "dev-cluster", teams...)
	if err != nil {
		return err
	}
	ready, err := s.news.await(ctx, began, all...)
	if err != nil {
		return err
	}
	disturbed := b.quiet.watch()
	var took samples
	for i := range b.count(40) {
		app := index.Apps[i*37%len(index.Apps)]
		path, text, err := changeImage(ctx, repository, app, i)
		if err != nil {
			return err
		}
		if err := s.audit.skip(); err != nil {
			return err
		}
		sent, err := s.push(ctx, "Change the image of "+app.Name, map[string]string{path: text})
		if err != nil {
			return err
		}
		if _, err := s.news.await(ctx, sent, app.Name+"/dev"); err != nil {
			return err
		}
		first, err := s.audit.firstWrite()
		if err != nil {
			return err
		}
		took = append(took, first.Sub(sent))
	}
	by := disturbed()
	what := fmt.Sprintf("push to first object applied, %d apps in the repository", apps)
	b.results.add(by, figure{Name: what + ", p50", Value: took.at(.5), Unit: "ms", Goal: atMost(400), Detail: took.String()})
	b.results.add(by, figure{Name: what + ", p95", Value: took.at(.95), Unit: "ms", Goal: atMost(1000),
		Detail: fmt.Sprintf("all in the cluster %.0f s after the start", ready.Sub(began).Seconds())})
	return nil
}

// firstWrite is when the first change since the last skip was answered.
func (a *audit) firstWrite() (time.Time, error) {
	requests, err := a.since()
	if err != nil {
		return time.Time{}, err
	}
	var first time.Time
	for _, r := range requests {
		if r.writes() && (first.IsZero() || r.Answered.Before(first)) {
			first = r.Answered
		}
	}
	if first.IsZero() {
		err = fmt.Errorf("%s tells of no change by the agent", a.path)
	}
	return first, err
}

// generated writes a repository of so many applications with a history.
func (b *bench) generated(ctx context.Context, name string, apps int) (*repository, genrepo.Index, error) {
	dir := filepath.Join(b.dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, genrepo.Index{}, err
	}
	r := &repository{filepath.Join(dir, "generated.git")}
	index, err := genrepo.Write(ctx, r.dir, genrepo.Options{Apps: apps, NoHPA: true})
	return r, index, err
}

var tag = regexp.MustCompile(`1\.[0-9]+\.[0-9]-[0-9a-f]{12}`)

// changeImage is a file of an application with another image for its target dev.
func changeImage(ctx context.Context, r *repository, app genrepo.App, n int) (path, text string, err error) {
	paths := map[string][]string{
		"kustomize": {"overlays/dev/kustomization.yaml"}, "helm-own": {"values-dev.yaml"}, "helm-shared": {"values-dev.yaml"}, "plain": {"dev/all.yaml", "dev/deployment.yaml"},
	}[app.Kind]
	for _, name := range paths {
		path = app.Dir + "/" + name
		if text, err = r.read(ctx, path); err == nil {
			break
		}
	}
	changed := tag.ReplaceAllString(text, fmt.Sprintf("1.0.0-%012x", n))
	if err == nil && changed == text {
		err = errors.New(path + " names no image")
	}
	return path, changed, err
}
