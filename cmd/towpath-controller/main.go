// Command towpath-controller is the server: it watches repositories, renders, and rolls out through agents. One binary, one configuration file.
package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
	_ "time/tzdata" // schedules name time zones (CRON_TZ=…), and an image has none

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"towpath/api"
	"towpath/cmd/towpath-controller/config"
	"towpath/gitsource"
	"towpath/internal/version"
	"towpath/render"
	"towpath/store"
)

// renderWorker is the argument that makes this program a render process.
const renderWorker = "render-worker"

func main() {
	if len(os.Args) == 2 && os.Args[1] == renderWorker {
		if err := render.Worker(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if err := command().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "towpath-controller:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	var file string
	var rebuild bool
	root := &cobra.Command{Use: "towpath-controller --config FILE", Short: "Brings what is in Git to clusters", Version: version.String(), Args: cobra.NoArgs,
		SilenceUsage: true, SilenceErrors: true, RunE: func(cmd *cobra.Command, _ []string) error { return serve(cmd.Context(), file, rebuild) }}
	root.PersistentFlags().StringVarP(&file, "config", "c", os.Getenv("TOWPATH_CONFIG"), "configuration file")
	root.Flags().BoolVar(&rebuild, "rebuild", os.Getenv("TOWPATH_REBUILD") == "true", "the database was lost and is empty: find out from the clusters what runs, and touch nothing until: towpath-controller resume; also TOWPATH_REBUILD=true")
	root.AddCommand(&cobra.Command{Use: "check", Short: "Say whether the configuration is good", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		c, err := config.Read(file)
		if err == nil {
			err = check(c)
		}
		if err == nil {
			fmt.Fprintf(cmd.OutOrStdout(), "%s is good: %d sources\n", file, len(c.Sources))
		}
		return err
	}}, &cobra.Command{Use: "key", Short: "Print a new key for keyFile", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		key := make([]byte, 32)
		rand.Read(key)
		_, err := fmt.Fprintln(cmd.OutOrStdout(), base64.StdEncoding.EncodeToString(key))
		return err
	}}, tokenCommand(&file), findingsCommand(&file), resumeCommand(&file))
	return root
}

func tokenCommand(file *string) *cobra.Command {
	var t store.Token
	var lasts time.Duration
	create := &cobra.Command{Use: "create --name NAME --grant GRANT…", Short: "Make an API token and print it, once", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		known := []string{api.View, api.Start, api.Approve, api.BreakGlass, api.Admin}
		for _, grant := range t.Grants {
			if !slices.Contains(known, grant) {
				return fmt.Errorf("no grant %q; there are %s", grant, strings.Join(known, ", "))
			}
		}
		if len(t.Grants) == 0 {
			return fmt.Errorf("--grant is missing; there are %s", strings.Join(known, ", "))
		}
		if lasts > 0 {
			t.Expires = time.Now().Add(lasts)
		}
		return withStore(cmd.Context(), *file, func(s *store.Store) error {
			id, secret, err := s.CreateToken(cmd.Context(), t)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "its id, which is the client id for the token endpoint: %s\n", id)
			_, err = fmt.Fprintln(cmd.OutOrStdout(), secret)
			return err
		})
	}}
	create.Flags().StringVar(&t.Name, "name", "", "whom it speaks for; events say it")
	create.Flags().StringVar(&t.Tenant, "tenant", "main", "tenant that it sees")
	create.Flags().StringSliceVar(&t.Grants, "grant", nil, "view, start, approve, breakGlass, admin; may repeat")
	create.Flags().StringSliceVar(&t.Roles, "role", nil, "role that it holds; may repeat")
	create.Flags().DurationVar(&lasts, "expires", 0, "how long it holds; 0: until it is revoked")
	if err := create.MarkFlagRequired("name"); err != nil {
		panic(err) // the flag is there
	}
	list := &cobra.Command{Use: "list", Short: "List API tokens, those that ended too", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		return withStore(cmd.Context(), *file, func(s *store.Store) error {
			tokens, err := s.Tokens(cmd.Context())
			if err != nil {
				return err
			}
			columns := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 2, ' ', 0)
			fmt.Fprintln(columns, "ID\tTENANT\tNAME\tGRANTS\tROLES\tCREATED\tENDS")
			for _, t := range tokens {
				fmt.Fprintf(columns, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", t.ID, t.Tenant, t.Name, strings.Join(t.Grants, ","), strings.Join(t.Roles, ","), t.Created.Format(time.DateTime), ends(t))
			}
			return columns.Flush()
		})
	}}
	revoke := &cobra.Command{Use: "revoke ID", Short: "End an API token, by the id that list shows", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		return withStore(cmd.Context(), *file, func(s *store.Store) error { return s.RevokeToken(cmd.Context(), args[0]) })
	}}
	token := &cobra.Command{Use: "token", Short: "Make, list and revoke API tokens"}
	token.AddCommand(create, list, revoke)
	return token
}

// ends says when a token ends, or did.
func ends(t store.Token) string {
	switch {
	case !t.Revoked.IsZero():
		return "revoked " + t.Revoked.Format(time.DateTime)
	case t.Expires.IsZero():
		return "never"
	}
	return t.Expires.Format(time.DateTime)
}

// check says everything that is wrong with a configuration beside its form.
func check(c *config.Config) error {
	wrong := []error{c.CheckFiles(), checkSOPS(c.SOPS)}
	if c.TLS.Certificate != "" {
		if _, err := tls.LoadX509KeyPair(c.TLS.Certificate, c.TLS.Key); err != nil {
			wrong = append(wrong, fmt.Errorf("tls: %w", err))
		}
	}
	for _, s := range c.Sources {
		if _, err := gitsource.NewPatterns(s.Paths); err != nil {
			wrong = append(wrong, fmt.Errorf("source %s: paths: %w", s.Name, err))
		}
		if _, err := gitsource.NewSchedule(s.Schedule); err != nil {
			wrong = append(wrong, fmt.Errorf("source %s: schedule: %w", s.Name, err))
		}
		if s.GitHub.TokenFile != "" {
			if _, err := gitHub(s.GitHub, nil); err != nil {
				wrong = append(wrong, fmt.Errorf("source %s: %w", s.Name, err))
			}
		}
	}
	for _, c := range c.GitHub.Apps {
		if a, err := openApp(c); err != nil {
			wrong = append(wrong, fmt.Errorf("github.apps %s: %w", c.Name, err))
		} else {
			wrong = append(wrong, a.CheckKey())
		}
	}
	if _, err := ruleSources(c); err != nil {
		wrong = append(wrong, err)
	}
	if providers, err := newMetricProviders(c.MetricProviders, nil); err != nil {
		wrong = append(wrong, err)
	} else {
		wrong = append(wrong, providers.check())
	}
	_, err := openOutside(c, nil)
	return errors.Join(append(wrong, err)...)
}

func withStore(ctx context.Context, file string, do func(*store.Store) error) error {
	s, err := openStore(ctx, file)
	if err != nil {
		return err
	}
	return errors.Join(do(s), s.Close())
}

func openStore(ctx context.Context, file string) (*store.Store, error) {
	c, err := config.Read(file)
	if err != nil {
		return nil, err
	}
	keys, err := c.Keys()
	if err != nil {
		return nil, err
	}
	database, err := c.DatabaseURL()
	if err != nil {
		return nil, err
	}
	return store.Open(ctx, store.Config{URL: database, Keys: keys, Log: logger(c)})
}

func logger(c *config.Config) *logrus.Entry {
	log := logrus.New()
	log.SetOutput(os.Stderr)
	if level, err := logrus.ParseLevel(c.Log.Level); err == nil {
		log.SetLevel(level)
	}
	if c.Log.Format == "json" {
		log.SetFormatter(&logrus.JSONFormatter{})
	}
	return logrus.NewEntry(log)
}

// serve runs the controller until it is told to stop; SIGHUP reads the sources and roles of the configuration anew.
func serve(ctx context.Context, file string, rebuild bool) error {
	if file == "" {
		return errors.New("no configuration: give --config FILE, or TOWPATH_CONFIG")
	}
	c, err := config.Read(file)
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	log := logger(c)
	m := New(c, log)
	m.Rebuild = rebuild
	if err := m.Run(ctx); err != nil {
		return errors.Join(err, m.Close())
	}
	log.WithFields(logrus.Fields{"api": m.Address, "hub": m.HubAddress, "version": version.String()}).Info("the controller serves")
	for s := range signals {
		if s != syscall.SIGHUP {
			break
		}
		fresh, err := config.Read(file)
		if err == nil {
			err = m.Reload(fresh)
		}
		if err != nil {
			log.WithError(err).Error("the configuration was not taken on whole")
			continue
		}
		log.Info("the sources and roles of the configuration were read anew")
	}
	signal.Reset(os.Interrupt, syscall.SIGTERM) // a second one ends it at once
	log.Info("the controller stops")
	return m.Close()
}
