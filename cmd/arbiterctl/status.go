package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/arbiterd/arbiter/arbiter/api"
)

func (a *app) status() *cobra.Command {
	return &cobra.Command{
		Use: "status", Args: nArgs(0, 0),
		Short: "Tell the daemon's own state",
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.api().Status(cmd.Context())
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.json(s)
			}
			f := fields{w: a.stdout}
			a.statusText(&f, s)
			return f.err
		},
	}
}

func (a *app) statusText(f *fields, s api.Status) {
	f.line("arbiterd", "%s, pid %d, started %s, cgroup v%d", s.Version, s.Pid, a.ago(s.Started), s.CgroupVersion)
	p := s.Policy
	f.line("policy", "%s of %s, digest %s, loaded %s", count(p.Rules, "rule"), count(len(p.Files), "file"), p.Digest, a.ago(p.Loaded))
	if p.Error != "" {
		f.line("", "REFUSED %s: the set above stays in force", a.ago(p.ErrorSince))
		f.lines("", p.Error)
	}
	for _, w := range p.Warnings {
		f.lines("", w)
	}
	f.line("held", "%s", outOf(s.Held, s.HeldMax))
	f.line("armed", "%s", outOf(s.Armed, s.ArmedMax))
	f.line("borrowed", "%s of %s", human(s.BorrowedBytes), human(s.BorrowedMax))
	for _, src := range s.Sources {
		f.line("source", "%s", sourceText(src, a.now()))
	}
	if s.NodeRail != "" {
		f.line("node", "no case opens: %s", s.NodeRail)
	}
	for _, d := range s.Disarmed {
		f.line("disarmed", "%s, until 'arbiterctl reload'", d)
	}
	for _, d := range s.Degraded {
		f.line("missing", "%s", d)
	}
	f.line("state", "%s, %s", s.StateDir, human(uint64(max(s.StateBytes, 0))))
}

func outOf(n, most int) string {
	if most == 0 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%d of %d", n, most)
}

func sourceText(s api.SourceStatus, now time.Time) string {
	state := "up"
	if !s.Up {
		state = "DOWN"
	}
	text := s.Name + " " + state
	if !s.Since.IsZero() {
		text += " for " + short(whole(now.Sub(s.Since)))
	}
	if s.Error != "" {
		text += ": " + oneLine(s.Error)
	}
	return text
}

// fields prints labelled lines; the first error stays.
type fields struct {
	w   io.Writer
	err error
}

func (f *fields) line(label, format string, args ...any) {
	f.lines(label, fmt.Sprintf(format, args...))
}

// lines prints a text with its label before the first line.
func (f *fields) lines(label, text string) {
	for l := range strings.Lines(text) {
		if f.err == nil {
			_, f.err = fmt.Fprintf(f.w, "%-10s %s\n", label, clean(strings.TrimSuffix(l, "\n")))
		}
		label = ""
	}
}

// section begins a list of items.
func (f *fields) section(title string) {
	if f.err == nil {
		_, f.err = fmt.Fprintf(f.w, "\n%s\n", title)
	}
}

func (f *fields) item(text string) {
	if f.err == nil {
		_, f.err = fmt.Fprintf(f.w, "  %s\n", clean(text))
	}
}
