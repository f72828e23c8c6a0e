package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"towpath/cmd/towpath-controller/config"
	"towpath/gitsource"
	"towpath/status"
)

// gitHubApp is a GitHub App of the configuration.
type gitHubApp struct {
	*status.App
	config config.App
}

// openApp makes an App; it does no network I/O.
func openApp(c config.App) (*gitHubApp, error) {
	web, err := gitHubClient(c.APIURL, c.CAFile)
	if err != nil {
		return nil, err
	}
	a, err := status.NewApp(status.AppConfig{Name: c.Name, ID: c.AppID, KeyFile: c.PrivateKeyFile, APIURL: c.APIURL, HTTP: web, Clock: time.Now})
	if err != nil {
		return nil, err
	}
	return &gitHubApp{a, c}, nil
}

// gitHubApps are those of the configuration. Safe for concurrent use.
type gitHubApps struct {
	mu   sync.Mutex
	all  map[string]*gitHubApp
	stop func() // ends asking for what did not arrive
}

// use takes on the Apps of a configuration, and, from when this controller serves until ctx ends, asks GitHub to send again what their webhooks did not bring.
func (as *gitHubApps) use(ctx context.Context, wanted []config.App, serves <-chan struct{}, looks status.Looks, log *logrus.Entry) error {
	as.mu.Lock()
	defer as.mu.Unlock()
	if as.stop != nil {
		as.stop()
	}
	running, cancel := context.WithCancel(ctx)
	var tasks sync.WaitGroup
	as.stop = func() {
		cancel()
		tasks.Wait()
	}
	var wrong []error
	all := map[string]*gitHubApp{}
	for _, c := range wanted {
		a := as.all[c.Name]
		if a == nil || fmt.Sprint(a.config) != fmt.Sprint(c) {
			var err error
			if a, err = openApp(c); err != nil {
				wrong = append(wrong, fmt.Errorf("github.apps %s: %w", c.Name, err))
				continue
			}
		}
		all[c.Name] = a
		if len(c.WebhookSecretFiles) > 0 {
			r := status.Redeliverer{App: a.App, Looks: looks, Log: log}
			tasks.Go(func() {
				select {
				case <-serves:
					r.Run(running)
				case <-running.Done():
				}
			})
		}
	}
	as.all = all
	return errors.Join(wrong...)
}

// get is an App by its name.
func (as *gitHubApps) get(name string) (*gitHubApp, error) {
	as.mu.Lock()
	defer as.mu.Unlock()
	if a := as.all[name]; a != nil {
		return a, nil
	}
	return nil, fmt.Errorf("the GitHub App %s could not be set up; the controller's log says why", name)
}

// signed is the App with whose secret a delivery is signed.
func (as *gitHubApps) signed(header http.Header, body []byte) (*gitHubApp, error) {
	as.mu.Lock()
	defer as.mu.Unlock()
	var refused error
	for _, a := range as.all {
		if len(a.config.WebhookSecretFiles) == 0 {
			continue
		}
		err := verify(a.config.WebhookSecretFiles, header.Get("X-Hub-Signature-256"), body)
		if err == nil {
			return a, nil
		}
		refused = cmp.Or(refused, err)
	}
	return nil, refused
}

// fetches gives a source the tokens of an App that is installed on its repository, to read there and no more.
func (as *gitHubApps) fetches(c config.Source) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		a, err := as.get(c.Auth.GitHubApp)
		if err != nil {
			return "", err
		}
		access, err := a.Access(ctx, c.Repository(), status.Permissions{"contents": "read"})
		return access.Token, err
	}
}

// refetches drops the token that a fetch of a source was refused with; true: the next fetch has another.
func (as *gitHubApps) refetches(c config.Source, failed error) bool {
	var f *gitsource.Error
	if c.Auth.GitHubApp == "" || !errors.As(failed, &f) || f.Kind != gitsource.AuthRefused {
		return false
	}
	a, err := as.get(c.Auth.GitHubApp)
	if err != nil {
		return false
	}
	a.Relocate(c.Repository())
	return true
}
