package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// intake is the way of a one-app commit from the end of the fetch until what it changes is known and recorded, in a large repository; as the controller's
// log tells.
func intake(ctx context.Context, b *bench) error {
	apps := b.count(5000)
	b.remove("apps") // an idle cluster is not quite idle
	repository, index, err := b.generated(ctx, "intake", apps)
	if err != nil {
		return err
	}
	began := time.Now()
	s, err := b.install(ctx, "intake", repository, "")
	if err != nil {
		return err
	}
	defer b.remove("intake")
	if _, err := s.taken(ctx, 1); err != nil {
		return err
	}
	whole := time.Since(began)
	disturbed := b.quiet.watch()
	count := b.count(100)
	for i := range count {
		app := index.Apps[i*37%len(index.Apps)]
		path, text, err := changeImage(ctx, repository, app, i)
		if err != nil {
			return err
		}
		if _, err := s.push(ctx, "Change the image of "+app.Name, map[string]string{path: text}); err != nil {
			return err
		}
		if _, err := s.taken(ctx, i+2); err != nil {
			return err
		}
	}
	by := disturbed()
	all, err := s.taken(ctx, count+1)
	if err != nil {
		return err
	}
	var took, rest, rendering, storing samples
	for _, t := range all[1:] {
		took = append(took, seconds(t.Took))
		rest = append(rest, seconds(t.Took-t.Rendering-t.Storing))
		rendering, storing = append(rendering, seconds(t.Rendering)), append(storing, seconds(t.Storing))
	}
	what := fmt.Sprintf("a one-app commit of %d apps, fetched to recorded", apps)
	b.results.add(by, figure{Name: what + ", p50", Value: took.at(.5), Unit: "ms", Goal: atMost(25),
		Detail: fmt.Sprintf("renders %.1f, database %.1f; the first commit took %.0f s", rendering.at(.5), storing.at(.5), whole.Seconds())})
	b.results.add(by, figure{Name: what + ", p99", Value: took.at(.99), Unit: "ms", Goal: atMost(100), Detail: took.String()})
	b.results.add(by, figure{Name: what + ", all but renders and database, p50", Value: rest.at(.5), Unit: "ms", Goal: atMost(2), Detail: rest.String()})
	return nil
}

func seconds(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }

// taken is what the controller's log says of a commit that was taken in. Times are in seconds.
type taken struct {
	Msg, Commit              string
	Took, Rendering, Storing float64
}

// taken waits until the log tells of so many commits.
func (s *site) taken(ctx context.Context, count int) ([]taken, error) {
	for {
		var all []taken
		for line := range strings.Lines(s.serves.Log()) {
			var t taken
			if strings.Contains(line, "a commit was taken in") && json.Unmarshal([]byte(line), &t) == nil {
				all = append(all, t)
			}
		}
		if len(all) >= count {
			return all, nil
		}
		select {
		case <-s.serves.Ended():
			return nil, fmt.Errorf("the controller ended:\n%s", s.serves.Log())
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}
