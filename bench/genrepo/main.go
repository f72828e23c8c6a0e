// Command genrepo writes the repository that benchmarks run on: a bare Git repository of many deployed applications with a history. See README.md.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"

	"towpath/internal/testkit/genrepo"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "genrepo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	out := flag.String("out", "", "bare repository to create (required; must not exist)")
	list := flag.String("index", "", "JSON file that lists apps and commits (default: OUT.json)")
	apps := flag.Int("apps", 5000, "apps")
	commits := flag.Int("commits", 200, "commits after the first that change 1-3 apps each")
	seed := flag.Uint64("seed", 1, "seed; same flags and seed give the same commit ids")
	branch := flag.String("branch", "main", "branch")
	ballast := flag.Int("ballast", 0, "MB of incompressible 1 MB files under docs/assets (big packs)")
	hpa := flag.Bool("hpa", true, "give apps HorizontalPodAutoscalers")
	file := flag.String("deploy-file", "deploy.yaml", "name of each app's deployment file; empty: none")
	flag.Parse()
	if *out == "" {
		return errors.New("-out is missing: the bare repository to create")
	}
	if *file == "" {
		*file = "-"
	}
	if *list == "" {
		*list = strings.TrimSuffix(*out, "/") + ".json"
	}
	index, err := genrepo.Write(ctx, *out, genrepo.Options{
		Apps: *apps, Commits: *commits, Seed: *seed, Branch: *branch, Ballast: *ballast, NoHPA: !*hpa, DeployFile: *file,
	})
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(index, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(*list, append(text, '\n'), 0o644); err != nil {
		return err
	}
	fmt.Printf("%d apps, %d files, %d commits\n", len(index.Apps), index.Files, len(index.Commits))
	return nil
}
