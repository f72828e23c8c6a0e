package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	github "towpath/status"
)

func (c *commandLine) gitHubCommand() *cobra.Command {
	var site, controller, organization, name, out string
	var teams, html bool
	manifest := &cobra.Command{Use: "app-manifest --url URL", Short: "Print what GitHub makes an App of: its permissions, events and webhook; with --html as a page with one button", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			web, err := github.NewSite(site)
			if err != nil {
				return fmt.Errorf("--github: %w", err)
			}
			address, err := url.Parse(controller)
			if err != nil || address.Host == "" || address.Scheme != "https" && address.Scheme != "http" {
				return fmt.Errorf("--url: %q is no http(s) address; it is to be the controller's externalURL", controller)
			}
			text, err := json.MarshalIndent(github.NewManifest(name, controller, teams), "", "  ")
			if err != nil {
				return err
			}
			if html {
				fmt.Fprintln(c.err, "Write this into a file, open that in a browser, and press the button. GitHub then leads to the controller, which says how to go on.")
				return web.WriteForm(c.out, organization, name, text)
			}
			fmt.Fprintf(c.err, "To be sent by a form to %s as its field manifest; --html makes that form.\n", web.Form(organization))
			_, err = fmt.Fprintf(c.out, "%s\n", text)
			return err
		}}
	manifest.Flags().StringVar(&controller, "url", "", "the controller's externalURL; GitHub must reach its "+github.HookPath)
	manifest.Flags().StringVar(&organization, "organization", "", "whose App it is; absent: of the person who makes it")
	manifest.Flags().StringVar(&name, "name", "towpath", "what it is called; no two Apps on a GitHub are called alike")
	manifest.Flags().BoolVar(&teams, "teams", false, "let it also read who is in which team, and which checks branches require")
	manifest.Flags().BoolVar(&html, "html", false, "print a page with a button that makes the App")
	if err := manifest.MarkFlagRequired("url"); err != nil {
		panic(err) // the flag is there
	}
	create := &cobra.Command{Use: "app-create CODE --out DIRECTORY", Short: "Fetch the key of an App that was made of a manifest, for the code that GitHub led back with", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			web, err := github.NewSite(site)
			if err != nil {
				return fmt.Errorf("--github: %w", err)
			}
			transport, err := c.transport()
			if err != nil {
				return err
			}
			files := appFiles{filepath.Join(out, "private-key.pem"), filepath.Join(out, "webhook-secret")}
			if err := files.prepare(); err != nil { // before the code is spent
				return err
			}
			made, err := web.Exchange(cmd.Context(), &http.Client{Transport: transport, Timeout: time.Minute}, args[0])
			if err != nil {
				return err
			}
			if err := files.write(made); err != nil {
				return fmt.Errorf("%w; make a new key and webhook secret in the App's settings, at %s", err, made.Address)
			}
			fmt.Fprintf(c.err, "The App %s is made. Install it on the repositories that Towpath is for, at %s/installations/new, and add this to the controller's configuration:\n\n", clean(made.Slug), clean(made.Address))
			api := ""
			if web.API() != gitHubAPI {
				api = "\n      apiURL: " + web.API()
			}
			_, err = fmt.Fprintf(c.out, "github:\n  apps:\n    - name: %s\n      appID: %d\n      privateKeyFile: %s\n      webhookSecretFiles: [%s]%s\n", clean(made.Slug), made.ID, files.key, files.secret, api)
			return err
		}}
	create.Flags().StringVar(&out, "out", "", "directory that the key and the webhook's secret are written to, for their owner alone")
	if err := create.MarkFlagRequired("out"); err != nil {
		panic(err) // the flag is there
	}
	command := &cobra.Command{Use: "github", Short: "Set up a GitHub App"}
	command.PersistentFlags().StringVar(&site, "github", "https://github.com", "address of an Enterprise Server in its place")
	command.AddCommand(manifest, create)
	return command
}

const gitHubAPI = "https://api.github.com/"

// appFiles are where the key and the webhook's secret of an App are written.
type appFiles struct{ key, secret string }

// prepare refuses to write over what is there.
func (f appFiles) prepare() error {
	dir, err := filepath.Abs(filepath.Dir(f.key))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, file := range []string{f.key, f.secret} {
		switch _, err := os.Lstat(file); {
		case err == nil:
			return fmt.Errorf("%s is there already; name another directory, or take it away", file)
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	return nil
}

func (f appFiles) write(made github.Made) error {
	return cmp.Or(writeNew(f.key, made.Key), writeNew(f.secret, made.Secret+"\n"))
}

// writeNew makes a file that only its owner may read.
func writeNew(name, text string) error {
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	return errors.Join(err, file.Close())
}
