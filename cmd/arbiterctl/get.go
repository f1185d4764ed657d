package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/arbiterd/arbiter/arbiter/casebook"
)

func (a *app) get() *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use: "get CASE [ARTIFACT]", Args: nArgs(1, 2),
		Short: "Fetch a case, or one of its artifacts",
		Long: `Fetch a whole case into a directory of its id: case.json, timeline.jsonl and
artifacts/. With ARTIFACT (its name, or how its name begins) fetch that file into
the working directory.

A fetch that was cut off goes on where it stopped when it is run again. Holes
of sparse files stay holes. What is complete is compared with the sha256 that
the daemon recorded.`,
		Example: `  arbiterctl get 7f3a
  arbiterctl get 7f3a core.1234 --to /data/core
  arbiterctl get 7f3a processes.txt --to -`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.fetchCase(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if len(args) == 1 {
				return a.getCase(cmd, c, to)
			}
			x, err := pickArtifact(c, args[1])
			if err != nil {
				return err
			}
			return a.getArtifact(cmd.Context(), c.ID, x, to)
		},
	}
	cmd.Flags().StringVar(&to, "to", "", `write there: a directory for a case, a file for an artifact ("-" is stdout)`)
	return cmd
}

// pickArtifact is the one artifact of that name, or whose name begins so.
func pickArtifact(c *casebook.Full, name string) (casebook.Artifact, error) {
	var hits []casebook.Artifact
	var names []string
	for _, x := range c.Artifacts {
		if x.Name == name {
			return x, nil
		}
		if strings.HasPrefix(x.Name, name) {
			hits = append(hits, x)
		}
		names = append(names, x.Name)
	}
	switch {
	case len(hits) == 1:
		return hits[0], nil
	case len(hits) > 1:
		return casebook.Artifact{}, fmt.Errorf("case %s: %d artifacts begin with %q: give more of the name", c.ID, len(hits), name)
	case len(names) == 0:
		return casebook.Artifact{}, fmt.Errorf("case %s has no artifacts", c.ID)
	}
	return casebook.Artifact{}, fmt.Errorf("case %s has no artifact %q; it has %s", c.ID, name, strings.Join(names, ", "))
}

// getCase fetches everything of a case.
func (a *app) getCase(cmd *cobra.Command, c *casebook.Full, dir string) error {
	if dir == "-" {
		return usagef(cmd, "a whole case does not fit on stdout: name an artifact")
	}
	if dir == "" {
		dir = c.ID
	}
	arts := filepath.Join(dir, "artifacts")
	if err := os.MkdirAll(arts, 0o700); err != nil {
		return err
	}
	record, err := json.MarshalIndent(c.Record, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "case.json"), append(record, '\n'), 0o600); err != nil {
		return err
	}
	var timeline []byte
	for _, e := range c.Timeline {
		line, err := json.Marshal(e)
		if err != nil {
			return err
		}
		timeline = append(append(timeline, line...), '\n')
	}
	if err := os.WriteFile(filepath.Join(dir, "timeline.jsonl"), timeline, 0o600); err != nil {
		return err
	}
	var errs []error
	for _, x := range c.Artifacts {
		if !filepath.IsLocal(x.Name) || strings.ContainsRune(x.Name, filepath.Separator) {
			errs = append(errs, fmt.Errorf("artifact %q: not a file name", x.Name))
			continue
		}
		errs = append(errs, a.getArtifact(cmd.Context(), c.ID, x, filepath.Join(arts, x.Name)))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return a.println(dir)
}

// getArtifact fetches one artifact into a file.
func (a *app) getArtifact(ctx context.Context, id string, x casebook.Artifact, to string) error {
	if to == "" {
		to = filepath.Base(x.Name)
	}
	switch {
	case x.Partial:
		a.hint("%s is only half written: %s", x.Name, oneLine(x.Why))
	case x.SHA256 == "":
		a.hint("%s has no sha256 recorded yet: it is not compared", x.Name)
	}
	if to == "-" {
		r, size, err := a.api().Artifact(ctx, id, x.Name, 0)
		if err != nil {
			return err
		}
		defer r.Close()
		return a.transfer(ctx, x.Name, r, a.stdout, 0, size)
	}
	d := download{app: a, id: id, x: x, path: to}
	if err := d.run(ctx); err != nil {
		return fmt.Errorf("get %s: %w", x.Name, err)
	}
	return nil
}
