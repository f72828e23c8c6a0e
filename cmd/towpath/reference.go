package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// reference is the page of the command line, made of the commands themselves.
func (c *commandLine) reference() string {
	var out strings.Builder
	out.WriteString(`# The command line

Generated from the commands; do not edit. Flags for all: ` + "`--addr`, `--ca`, `-o text|json|yaml`" + `. The token is TOWPATH_TOKEN, or the content of TOWPATH_TOKEN_FILE
(~/.towpath/token), which only its owner may read.

| exit code | meaning |
|---|---|
| 0 | done; with --watch: SUCCEEDED |
| 1 | any error; with --watch: not SUCCEEDED |
| 3 | another deployment of the application is under way |

| command | what it does | flags |
|---|---|---|
`)
	var walk func(*cobra.Command)
	walk = func(command *cobra.Command) {
		if command.Runnable() && command.Name() != "help" && command.Parent() != nil && command.Parent().Name() != "completion" {
			var flags []string
			command.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
				if f.Name != "help" {
					flags = append(flags, fmt.Sprintf("`--%s` %s", f.Name, f.Usage))
				}
			})
			fmt.Fprintf(&out, "| `%s` | %s | %s |\n", strings.ReplaceAll(command.UseLine(), "|", "\\|"), command.Short, strings.ReplaceAll(strings.Join(flags, "; "), "|", "\\|"))
		}
		for _, sub := range command.Commands() {
			walk(sub)
		}
	}
	walk(c.root())
	return out.String()
}
