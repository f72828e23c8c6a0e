package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"towpath/api"
)

// scope is what a hold halts, as flags say it.
type scope struct {
	all          bool
	app, account string
}

func (s *scope) flags(command *cobra.Command) {
	command.Flags().BoolVar(&s.all, "all", false, "all rollouts")
	command.Flags().StringVar(&s.app, "app", "", "those of this application")
	command.Flags().StringVar(&s.account, "account", "", "those on this account")
}

// named is the scope and its name; an error unless exactly one is said.
func (s *scope) named() (kind, name string, err error) {
	said := 0
	for _, given := range []struct {
		kind, name string
		is         bool
	}{{"all", "", s.all}, {"application", s.app, s.app != ""}, {"account", s.account, s.account != ""}} {
		if given.is {
			kind, name = given.kind, given.name
			said++
		}
	}
	if said != 1 {
		return "", "", errors.New("say what is halted: --app NAME, --account NAME, or --all")
	}
	return kind, name, nil
}

func (c *commandLine) holdCommand() *cobra.Command {
	var s scope
	var reason string
	hold := &cobra.Command{Use: "hold [--app NAME | --account NAME | --all] --reason WHY", Short: "Halt rollouts where they are, until unhold; without flags, show what is halted", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if s == (scope{}) && reason == "" {
				return c.holds(cmd)
			}
			kind, name, err := s.named()
			if err == nil && reason == "" {
				err = errors.New("--reason is missing: those who wait will read it")
			}
			if err != nil {
				return err
			}
			return c.order(cmd.Context(), http.MethodPost, "/holds", map[string]string{"scope": kind, "name": name, "reason": reason}, "halted")
		}}
	s.flags(hold)
	hold.Flags().StringVar(&reason, "reason", "", "why; those who wait read it")
	return hold
}

func (c *commandLine) holds(cmd *cobra.Command) error {
	var found struct{ Items []api.Hold }
	return c.list(cmd, "/holds", &found, func() any { return found.Items }, func(w io.Writer) {
		fmt.Fprintln(w, "HALTED\tNAME\tBY\tSINCE\tREASON")
		for _, h := range found.Items {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", h.Scope, clean(h.Name), clean(h.By), h.At.UTC().Format("2006-01-02 15:04 UTC"), clean(h.Reason))
		}
	})
}

func (c *commandLine) unholdCommand() *cobra.Command {
	var s scope
	unhold := &cobra.Command{Use: "unhold --app NAME | --account NAME | --all", Short: "Let halted rollouts go on", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		kind, name, err := s.named()
		if err != nil {
			return err
		}
		return c.order(cmd.Context(), http.MethodDelete, "/holds?scope="+kind+"&name="+url.QueryEscape(name), nil, "it goes on")
	}}
	s.flags(unhold)
	return unhold
}
