// Command githubapi makes the part of GitHub's OpenAPI description that tests check requests and answers against: the endpoints of endpoints.txt with all
// they refer to, without prose and examples. It takes the description from the npm package @octokit/openapi, by npm.
//
//	githubapi -out DIR [-version VERSION]
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// pinned is the version that tests are made for; a newer one is tried with -version.
const pinned = "23.0.2"

const (
	whole   = "package/generated/api.github.com.json"
	license = "package/LICENSE"
)

//go:embed endpoints.txt
var endpoints string

func main() {
	out := flag.String("out", "", "directory that description.json and LICENSE are written to")
	version := flag.String("version", pinned, "of the npm package @octokit/openapi")
	flag.Parse()
	if err := run(*out, *version); err != nil {
		fmt.Fprintln(os.Stderr, "githubapi:", err)
		os.Exit(1)
	}
}

func run(out, version string) error {
	if out == "" {
		return errors.New("-out is required: the directory to write to")
	}
	files, err := pack("@octokit/openapi@"+version, whole, license)
	if err != nil {
		return err
	}
	var description map[string]any
	if err := json.Unmarshal(files[whole], &description); err != nil {
		return fmt.Errorf("%s: %w", whole, err)
	}
	trimmed, err := trim(description, endpoints)
	if err != nil {
		return err
	}
	trimmed["x-made-by"] = "tools/githubapi from the npm package @octokit/openapi " + version
	text, err := layOut(trimmed)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(filepath.Join(out, "description.json"), text, 0o644), os.WriteFile(filepath.Join(out, "LICENSE"), files[license], 0o644))
}

// pack downloads an npm package without running anything of it, and reads files from it.
func pack(name string, wanted ...string) (map[string][]byte, error) {
	dir, err := os.MkdirTemp("", "githubapi")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	command := exec.Command("npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", dir, name)
	command.Stderr = os.Stderr
	archive, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("npm pack %s: %w", name, err)
	}
	packed, err := os.Open(filepath.Join(dir, string(bytes.TrimSpace(archive))))
	if err != nil {
		return nil, err
	}
	defer packed.Close()
	unzipped, err := gzip.NewReader(packed)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for entries := tar.NewReader(unzipped); len(files) < len(wanted); {
		entry, err := entries.Next()
		if err != nil {
			return nil, fmt.Errorf("%s holds not all of %v: %w", name, wanted, err)
		}
		for _, w := range wanted {
			if entry.Name == w {
				if files[w], err = io.ReadAll(entries); err != nil {
					return nil, err
				}
			}
		}
	}
	return files, nil
}
