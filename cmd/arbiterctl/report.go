package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/arbiterd/arbiter/arbiter/casebook"
	"github.com/arbiterd/arbiter/arbiter/report"
)

func (a *app) report() *cobra.Command {
	var to string
	var open bool
	cmd := &cobra.Command{
		Use: "report CASE", Args: nArgs(1, 1),
		Short: "Write the HTML report of a case, or open it",
		Long: `Write the HTML report of a case: why, who, the timeline, where the memory was,
the processes and the artifacts. It is one file that loads nothing.

CASE is a case's id, or the path of a case.json or of a directory that
'arbiterctl get' wrote.`,
		Example: `  arbiterctl report 7f3a
  arbiterctl report 7f3a --to - > report.html
  arbiterctl report ./20261121T061502-7f3a --open`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, dir, err := a.caseOf(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			files, err := a.reportFiles(cmd.Context(), c, dir)
			if err != nil {
				return err
			}
			if to == "-" {
				return report.Write(a.stdout, c, files)
			}
			if to == "" {
				to = c.ID + ".html"
			}
			if err := writeReport(to, c, files); err != nil {
				return err
			}
			if open {
				return openFile(cmd.Context(), to)
			}
			return a.println(to)
		},
	}
	cmd.Flags().StringVar(&to, "to", "", `write there; default CASE.html, "-" is stdout`)
	cmd.Flags().BoolVar(&open, "open", false, "open it in a browser (xdg-open)")
	return cmd
}

// reportFiles reads those artifacts that the report shows.
func (a *app) reportFiles(ctx context.Context, c *casebook.Full, dir string) ([]report.File, error) {
	var files []report.File
	for _, x := range c.Artifacts {
		if !report.Shows(x) {
			continue
		}
		data, err := a.readArtifact(ctx, c.ID, x.Name, dir)
		if err != nil && dir != "" && errors.Is(err, os.ErrNotExist) {
			continue // not fetched with the case
		}
		if err != nil {
			return nil, err
		}
		files = append(files, report.File{Name: x.Name, Data: data})
	}
	return files, nil
}

func (a *app) readArtifact(ctx context.Context, id, name, dir string) ([]byte, error) {
	var r io.ReadCloser
	var err error
	if dir == "" {
		r, _, err = a.api().Artifact(ctx, id, name, 0)
	} else {
		r, err = os.Open(filepath.Join(dir, "artifacts", filepath.Base(name)))
	}
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, report.MaxFile))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return data, nil
}

// writeReport keeps others from reading: there are command lines in it.
func writeReport(path string, c *casebook.Full, files []report.File) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if err := report.Write(f, c, files); err != nil {
		return errors.Join(err, f.Close())
	}
	return f.Close()
}

func openFile(ctx context.Context, path string) error {
	out, err := exec.CommandContext(ctx, "xdg-open", path).CombinedOutput()
	if err != nil {
		return fmt.Errorf("open %s: %w %s", path, err, oneLine(string(out)))
	}
	return nil
}
