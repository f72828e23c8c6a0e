package main

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"towpath/api/client"
	"towpath/internal/version"
)

// commandLine is the program with its surroundings.
type commandLine struct {
	out, err io.Writer
	getenv   func(string) string

	address, ca, output string
}

func (c *commandLine) root() *cobra.Command {
	root := &cobra.Command{Use: "towpath", Short: "Bring what is in Git to clusters", SilenceUsage: true, SilenceErrors: true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if !slices.Contains([]string{"text", "json", "yaml"}, c.output) {
				return fmt.Errorf("no output %q; there are text, json, yaml", c.output)
			}
			return nil
		}}
	flags := root.PersistentFlags()
	flags.StringVar(&c.address, "addr", "", "address of the controller (TOWPATH_ADDR)")
	flags.StringVar(&c.ca, "ca", "", "file of certificates to trust beside the system's (TOWPATH_CA)")
	flags.StringVarP(&c.output, "output", "o", "text", "text, json or yaml")
	root.AddCommand(c.validateCommand(), c.schemaCommand(), c.initCommand(), c.renderCommand(), c.simulateCommand(), c.planCommand(), c.deployCommand(), c.whyCommand(), c.holdCommand(), c.unholdCommand(), c.previewCommand(), c.agentCommand(), c.sourceCommand(), c.proposalCommand(), c.analysisCommand(), c.policyCommand(), c.gitHubCommand(),
		c.appCommand(), &cobra.Command{Use: "version", Short: "Print the version of this program", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
			text, err := json.Marshal(map[string]string{"version": version.String()})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.out, "%s\n", text)
			return err
		}})
	return root
}

// client is the controller that flags and environment name.
func (c *commandLine) client() (*client.Client, error) {
	address := cmp.Or(c.address, c.getenv("TOWPATH_ADDR"))
	if address == "" {
		return nil, errors.New("no controller: give --addr https://…, or TOWPATH_ADDR")
	}
	token, err := c.token()
	if err != nil {
		return nil, err
	}
	transport, err := c.transport()
	if err != nil {
		return nil, err
	}
	return &client.Client{Address: address, Token: token, HTTP: &http.Client{Transport: transport}}, nil
}

// transport trusts the system's certificates and those that flags and environment name.
func (c *commandLine) transport() (*http.Transport, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	text, err := c.authorities()
	if err != nil {
		return nil, err
	}
	if text != nil {
		roots, err := x509.SystemCertPool()
		if err != nil {
			roots = x509.NewCertPool()
		}
		if !roots.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s holds no certificate", cmp.Or(c.ca, c.getenv("TOWPATH_CA")))
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	return transport, nil
}

// authorities is the certificates that are trusted beside the system's; nil without any.
func (c *commandLine) authorities() ([]byte, error) {
	name := cmp.Or(c.ca, c.getenv("TOWPATH_CA"))
	if name == "" {
		return nil, nil
	}
	return os.ReadFile(name)
}

// token is TOWPATH_TOKEN, or the content of a file that only its owner may read.
func (c *commandLine) token() (string, error) {
	if token := c.getenv("TOWPATH_TOKEN"); token != "" {
		return token, nil
	}
	file := c.getenv("TOWPATH_TOKEN_FILE")
	if file == "" {
		file = filepath.Join(c.getenv("HOME"), ".towpath", "token")
	}
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("no token: give TOWPATH_TOKEN, or write it to %s (chmod 600); `towpath-controller token create` makes one", file)
	}
	if err != nil {
		return "", err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("others may read the token in %s; run: chmod 600 %s", file, file)
	}
	text, err := os.ReadFile(file)
	return strings.TrimSpace(string(text)), err
}

// show prints a value in the wanted form; text prints it for people.
func (c *commandLine) show(v any, text func(io.Writer)) error {
	switch c.output {
	case "text":
		text(c.out)
		return nil
	case "json":
		encoder := json.NewEncoder(c.out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(v)
	case "yaml":
		out, err := yaml.Marshal(v)
		if err != nil {
			return err
		}
		_, err = c.out.Write(out)
		return err
	}
	return nil // root took no other
}

// line prints one line as scripts know it: with the time before it. Where the output is a document for programs, lines are told beside it.
func (c *commandLine) line(format string, args ...any) {
	out := c.out
	if c.output != "text" {
		out = c.err
	}
	fmt.Fprintf(out, "[%s] %s\n", time.Now().UTC().Format(time.RFC3339), clean(fmt.Sprintf(format, args...)))
}

// clean takes out of a text what a terminal would obey: commit messages and clusters' answers are other people's.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)) {
			return -1
		}
		return r
	}, text)
}
