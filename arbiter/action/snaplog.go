package action

import (
	"context"
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/arbiterd/arbiter/arbiter/proc"
)

const (
	maxLogLines  = 60
	maxDumpLines = 200 // of one out-of-memory report
)

// kernelLog picks what concerns the container from the kernel's log.
func (c *collector) kernelLog(ctx context.Context, path string) {
	pids := map[string]bool{}
	for _, p := range c.r.Processes {
		pids[strconv.Itoa(p.Pid)] = true
	}
	f := logFilter{paths: limitedPaths(c.env.Cgroup.Path()), pids: pids}
	if err := proc.KernelLog(ctx, path, f.add); err != nil {
		c.miss("kernel log: %v", err)
	}
	c.r.KernelLog = f.end()
}

// limitedPaths are the cgroups whose out-of-memory reports concern the
// container: its own and its pod's.
func limitedPaths(own string) []string {
	paths := []string{own}
	if parent := path.Dir(own); strings.Count(parent, "/") > 1 { // not /kubepods or /system.slice: they are everybody's
		paths = append(paths, parent)
	}
	return paths
}

// A logFilter keeps the newest lines that name one of the cgroups or
// processes. An out-of-memory report is kept or dropped as a whole: only its
// last lines name the cgroup.
type logFilter struct {
	paths []string
	pids  map[string]bool

	kept   []logLine
	report []logLine // the one being read, nil outside of one
	ours   bool
}

var logPid = regexp.MustCompile(`(?:\bpid[ =]|[Pp]rocess |PID: )(\d+)`)

// logStat is a line of the report that only repeats memory.stat.
var logStat = regexp.MustCompile(`^[a-z0-9_]+ \d+$`)

func (f *logFilter) add(r proc.LogRecord) {
	line := logLine{r.At, printable(r.Text, 300)}
	if strings.Contains(r.Text, " invoked oom-killer:") {
		f.flush()
		f.report = []logLine{}
	}
	if f.report == nil {
		if f.concerns(r.Text) {
			f.keep(line)
		}
		return
	}
	if !logStat.MatchString(r.Text) {
		f.report = append(f.report, line)
	}
	f.ours = f.ours || f.names(r.Text)
	if strings.HasPrefix(r.Text, "oom-kill:") || strings.Contains(r.Text, "no killable process") || len(f.report) == maxDumpLines {
		f.flush()
	}
}

// flush ends the report being read.
func (f *logFilter) flush() {
	if f.ours {
		f.keep(f.report...)
	}
	f.report, f.ours = nil, false
}

func (f *logFilter) keep(lines ...logLine) {
	f.kept = append(f.kept, lines...)
	f.kept = f.kept[max(0, len(f.kept)-maxLogLines):]
}

func (f *logFilter) end() []logLine {
	f.flush()
	return f.kept
}

func (f *logFilter) concerns(text string) bool {
	if f.names(text) {
		return true
	}
	for _, m := range logPid.FindAllStringSubmatch(text, -1) {
		if f.pids[m[1]] {
			return true
		}
	}
	return false
}

// names tells whether text holds one of the paths, or one below it.
func (f *logFilter) names(text string) bool {
	for _, p := range f.paths {
		for at := 0; ; {
			i := strings.Index(text[at:], p)
			if i < 0 {
				break
			}
			begin, end := at+i, at+i+len(p)
			if (begin == 0 || strings.IndexByte("=: ", text[begin-1]) >= 0) &&
				(end == len(text) || strings.IndexByte("/,: ", text[end]) >= 0) {
				return true
			}
			at = end
		}
	}
	return false
}
