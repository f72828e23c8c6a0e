package main

import (
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"towpath/cmd/towpath-controller/config"
	"towpath/status"
)

func TestSourcesOfOneTokenShareOneTellerAndTheSmallestBudget(t *testing.T) {
	t.Parallel()
	log := logrus.New()
	log.SetOutput(io.Discard)
	source := func(name, token string, minute, hour int) config.Source {
		return config.Source{Name: name, GitHub: config.GitHub{Repository: "acme/" + name, TokenFile: token, APIURL: "https://api.github.com/", PerMinute: minute, PerHour: hour}}
	}
	sources := []config.Source{source("web", "/a", 60, 100), source("shop", "/a", 20, 450), source("alone", "/b", 600, 450), {Name: "quiet"}}
	all, told, err := tellers(sources, &gitHubApps{}, nil, func(string, string) string { return "" }, logrus.NewEntry(log))
	if err != nil {
		t.Fatal(err)
	}
	if len(told) != 3 || told["web"] != told["shop"] || told["alone"] == nil {
		t.Errorf("told about %v", told)
	}
	slices.SortFunc(all, func(a, b *status.Teller) int { return len(b.Repositories) - len(a.Repositories) })
	if len(all) != 2 || len(all[0].Repositories) != 2 || all[1].Repositories["alone"] != "acme/alone" {
		t.Fatalf("tellers of %d names", len(all))
	}
	if want := (status.Budget{Pause: 3 * time.Second, Minute: 20, Hour: 100}); all[0].Budget != want {
		t.Errorf("two that share a token have the budget %+v, want %+v", all[0].Budget, want)
	}
	if want := (status.Budget{Pause: time.Second, Minute: 600, Hour: 450}); all[1].Budget != want {
		t.Errorf("GitHub wants a second between two writes; the budget is %+v", all[1].Budget)
	}

	sources[0].GitHub.CAFile = filepath.Join(t.TempDir(), "none")
	if _, _, err := tellers(sources, &gitHubApps{}, nil, nil, logrus.NewEntry(log)); err == nil || !strings.HasPrefix(err.Error(), "source web: github.caFile: open ") {
		t.Errorf("an authority that is not there: %v", err)
	}
}
