package main

import (
	"cmp"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"towpath/api"
	"towpath/deployment"
)

// callsCommand lists what a deployment has asked of webhooks and metric providers.
func (c *commandLine) callsCommand() *cobra.Command {
	return &cobra.Command{Use: "calls ID", Short: "What the steps of a deployment have asked of webhooks and metric providers, and what came of it", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		var found struct{ Items []api.Called }
		return c.list(cmd, "/deployments/"+url.PathEscape(args[0])+"/calls", &found, func() any { return found.Items }, func(w io.Writer) {
			fmt.Fprintln(w, "TARGET\tSTEP\tCALLS\tRUN\tTRY\tAT\tSTATE\tVALUE\tLIMITS\tSAYS")
			for _, call := range found.Items {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\n", clean(call.Target), call.Gate, clean(called(call)), count(call.Run), call.Try, call.At.Local().Format(time.DateTime),
					verdict(call), value(call.Value), limits(call), strings.ReplaceAll(clean(says(cmp.Or(call.Message, call.Text), call.Unfilled)), "\n", " ⏎ "))
			}
		})
	}}
}

// called is what is called: a webhook, a query, or a query of a baseline.
func called(call api.Called) string {
	if call.Baseline != "" {
		return call.Name + " of " + call.Baseline
	}
	return call.Name
}

// says is a text on a call, and which variables nothing filled in what it sent.
func says(text string, unfilled []string) string {
	empty := deployment.Unfilled(unfilled)
	if text != "" && empty != "" {
		text += "; "
	}
	return text + empty
}

func count(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

// verdict is how a call stands, and what it came to.
func verdict(call api.Called) string {
	switch {
	case call.Passed == nil:
		return call.State
	case *call.Passed:
		return "passed"
	}
	return "failed"
}

func value(v *float64) string {
	if v == nil {
		return ""
	}
	return strconv.FormatFloat(*v, 'g', 6, 64)
}

func limits(call api.Called) string {
	switch {
	case call.Lower != nil && call.Upper != nil:
		return value(call.Lower) + "–" + value(call.Upper)
	case call.Lower != nil:
		return "≥ " + value(call.Lower)
	case call.Upper != nil:
		return "≤ " + value(call.Upper)
	}
	return ""
}
