package action

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/arbiterd/arbiter/arbiter/proc"
)

const maxTextProcesses = 40

// statLines explains memory.stat: the keys of version 2 and 1, and what they
// are to people.
var statLines = []struct {
	keys  []string
	label string
}{
	{[]string{"anon", "rss"}, "anonymous: heaps, stacks"},
	{[]string{"anon_thp", "rss_huge"}, "  in huge pages"},
	{[]string{"file", "cache"}, "page cache, with shared memory"},
	{[]string{"shmem"}, "  shared memory, tmpfs: cannot be dropped"},
	{[]string{"file_mapped", "mapped_file"}, "  mapped files"},
	{[]string{"file_dirty", "dirty"}, "  dirty"},
	{[]string{"file_writeback", "writeback"}, "  being written"},
	{[]string{"kernel"}, "kernel memory"},
	{[]string{"slab_reclaimable"}, "  slab, reclaimable"},
	{[]string{"slab_unreclaimable"}, "  slab, not reclaimable"},
	{[]string{"kernel_stack"}, "  thread stacks"},
	{[]string{"pagetables"}, "  page tables"},
	{[]string{"percpu"}, "  per cpu"},
	{[]string{"vmalloc"}, "  vmalloc"},
	{[]string{"sock"}, "socket buffers"},
	{[]string{"unevictable"}, "unevictable: mlock, ramfs"},
	{[]string{"swap"}, "swapped out"},
	{[]string{"zswap"}, "compressed swap in RAM"},
}

// writeText writes snapshot.txt.
func (r *report) writeText(to io.Writer) error {
	w := bufio.NewWriter(to)
	fmt.Fprintf(w, "%s\n\nwhy        %s\nwhere      %s\n", r.Container, printable(r.Why, 400), r.Answer)
	fmt.Fprintf(w, "case       %s, rule %s, trigger %s\n", r.Case, r.Rule, r.Trigger)
	fmt.Fprintf(w, "taken      %s, in %s\n", r.Taken.Format(time.RFC3339), r.Elapsed.Round(time.Millisecond))
	r.writeLevels(w)
	r.writeStat(w)
	r.writeProcesses(w)
	r.writeMappings(w)
	r.writePressure(w)
	r.writeTree(w)
	r.writeLog(w)
	if len(r.Missing) > 0 {
		fmt.Fprintf(w, "\nNOT READ\n")
		for _, m := range r.Missing {
			fmt.Fprintf(w, "  %s\n", m)
		}
	}
	return w.Flush()
}

// answer is where the memory is, in one line.
func (r *report) answer() string {
	var parts []string
	if limit, ok := r.LimitBytes.Bytes(); ok && limit > 0 {
		parts = append(parts, fmt.Sprintf("usage %s of %s (%.0f %%), %.0f %% cannot be reclaimed",
			mib(r.UsageBytes), mib(limit), share(r.UsageBytes, limit), share(r.UnreclaimableBytes, limit)))
	} else {
		parts = append(parts, fmt.Sprintf("usage %s, no limit", mib(r.UsageBytes)))
	}
	if label, n := r.largestKind(); n > 0 {
		parts = append(parts, fmt.Sprintf("most of it %s, %s", label, mib(n)))
	}
	if len(r.Processes) > 0 {
		p := r.Processes[0]
		parts = append(parts, fmt.Sprintf("largest of %d processes is %d (%s), %s", r.ProcessCount, p.Pid, p.Name, mib(p.RSS+p.Swap)))
	}
	return strings.Join(parts, "; ")
}

// largestKind is the kind of memory that there is most of.
func (r *report) largestKind() (label string, bytes uint64) {
	if len(r.Levels) == 0 {
		return "", 0
	}
	get := func(keys ...string) uint64 { n, _ := stat(r.Levels[0].Stat, keys); return n }
	shmem := get("shmem")
	for _, k := range []struct {
		label string
		bytes uint64
	}{
		{"anonymous memory", get("anon", "rss")},
		{"shared memory", shmem},
		{"page cache", get("file", "cache") - min(shmem, get("file", "cache"))},
		{"kernel memory", get("kernel")},
		{"socket buffers", get("sock")},
	} {
		if k.bytes > bytes {
			label, bytes = k.label, k.bytes
		}
	}
	return label, bytes
}

func stat(m map[string]uint64, keys []string) (uint64, bool) {
	for _, key := range keys {
		if n, ok := m[key]; ok {
			return n, true
		}
	}
	return 0, false
}

func share(part, whole uint64) float64 { return 100 * float64(part) / float64(whole) }

func (r *report) writeLevels(w io.Writer) {
	if len(r.Levels) == 0 {
		return
	}
	fmt.Fprintf(w, "\nCGROUPS, innermost first\n  %12s %12s %12s  %s\n", "usage", "limit", "high-water", "path")
	for _, l := range r.Levels {
		mark := ""
		if l.Path == r.LimitCgroup {
			mark = "   <- this limit binds"
		}
		fmt.Fprintf(w, "  %12s %12s %12s  %s%s\n", l.text(usageFiles), l.text(limitFiles), l.text(peakFiles), printable(l.Path, 200), mark)
	}
	own := r.Levels[0]
	fmt.Fprintf(w, "\n")
	for _, name := range otherFiles {
		if v, ok := own.Values[name]; ok {
			fmt.Fprintf(w, "  %-34s %s\n", name, human(v))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(own.Events)) {
		fmt.Fprintf(w, "  %-34s %d\n", "event "+printable(key, 28), own.Events[key])
	}
}

// text is the first of a level's files that this kernel has, for people.
func (l level) text(names []string) string {
	for _, name := range names {
		if v, ok := l.Values[name]; ok {
			return human(v)
		}
	}
	return "-"
}

// noLimit and above is how version 1 writes that there is no limit.
const noLimit = 1 << 62

// human writes a large number of bytes as MiB, and anything else as it is.
func human(v string) string {
	var n uint64
	if _, err := fmt.Sscan(v, &n); err != nil || n < 4096 {
		return v
	}
	if n >= noLimit {
		return "none"
	}
	return mib(n)
}

func (r *report) writeStat(w io.Writer) {
	if len(r.Levels) == 0 || len(r.Levels[0].Stat) == 0 {
		return
	}
	limit, limited := r.LimitBytes.Bytes()
	fmt.Fprintf(w, "\nMEMORY BY KIND\n")
	for _, line := range statLines {
		n, ok := stat(r.Levels[0].Stat, line.keys)
		switch {
		case !ok, n == 0:
		case limited && limit > 0:
			fmt.Fprintf(w, "  %12s %6.1f %%  %s\n", mib(n), share(n, limit), line.label)
		default:
			fmt.Fprintf(w, "  %12s  %s\n", mib(n), line.label)
		}
	}
}

func (r *report) writeProcesses(w io.Writer) {
	fmt.Fprintf(w, "\nPROCESSES (%d), MiB, largest first\n", r.ProcessCount)
	fmt.Fprintf(w, "  %7s %7s %6s  %s %5s %8s %8s %8s %8s %8s %5s %5s  %-15s %s\n", "pid", "nspid", "uid", "s", "thr",
		"rss", "peak", "anon", "shm", "swap", "score", "adj", "name", "arguments")
	m := func(n uint64) string { return fmt.Sprintf("%.1f", float64(n)/(1<<20)) }
	for i, p := range r.Processes {
		if i == maxTextProcesses {
			fmt.Fprintf(w, "  and %d more, see snapshot.json\n", len(r.Processes)-i)
			break
		}
		args := "?"
		if p.Args != nil {
			args = strings.Join(p.Args, " ")
		}
		fmt.Fprintf(w, "  %7d %7d %6d  %s %5d %8s %8s %8s %8s %8s %5d %5d  %-15s %s\n", p.Pid, p.NSPid, p.UID, p.State, p.Threads,
			m(p.RSS), m(p.Peak), m(p.Anon), m(p.Shmem), m(p.Swap), p.OOMScore, p.OOMScoreAdj, p.Name, args)
	}
}

func (r *report) writeMappings(w io.Writer) {
	for _, p := range r.Mappings {
		fmt.Fprintf(w, "\nMAPPINGS of %d: rss %s, proportional %s, anonymous %s, huge pages %s, swapped %s, locked %s\n", p.Pid,
			mib(p.Rollup.RSS), mib(p.Rollup.PSS), mib(p.Rollup.Anonymous), mib(p.Rollup.AnonHuge), mib(p.Rollup.Swap), mib(p.Rollup.Locked))
		for _, m := range p.Largest {
			if m.RSS+m.Swap == 0 {
				break
			}
			name := m.Name
			if name == "" {
				name = "(no name: mmap)"
			}
			fmt.Fprintf(w, "  %12s of %12s  %s  %x  %s\n", mib(m.RSS+m.Swap), mib(m.Size), m.Perms, m.Start, name)
		}
	}
}

func (r *report) writePressure(w io.Writer) {
	fmt.Fprintf(w, "\nPRESSURE, %% of the time of the last 10 s, 60 s, 300 s\n")
	line := func(what string, p proc.Pressure) {
		fmt.Fprintf(w, "  %-16s some %5.1f %5.1f %5.1f   full %5.1f %5.1f %5.1f\n", what, p.Some.Avg10, p.Some.Avg60, p.Some.Avg300,
			p.Full.Avg10, p.Full.Avg60, p.Full.Avg300)
	}
	for i, l := range r.Levels {
		if l.Pressure != nil {
			line([]string{"container", "pod", "above"}[min(i, 2)]+" memory", *l.Pressure)
		}
	}
	for _, kind := range []string{"memory", "cpu", "io"} {
		if p, ok := r.Node.Pressure[kind]; ok {
			line("node "+kind, p)
		}
	}
	if m := r.Node.Memory; m != nil {
		fmt.Fprintf(w, "\nNODE\n  memory %s, available %s, swap %s of it free %s, dirty %s, slab %s\n",
			mib(m.Total), mib(m.Available), mib(m.SwapTotal), mib(m.SwapFree), mib(m.Dirty), mib(m.Slab))
	}
}

func (r *report) writeTree(w io.Writer) {
	if len(r.Tree) == 0 {
		return
	}
	fmt.Fprintf(w, "\nCGROUPS BELOW\n")
	for _, e := range r.Tree {
		fmt.Fprintf(w, "  %12s of %12s  %4d processes  %s\n", human(e.Usage), human(e.Limit), e.Processes, e.Path)
	}
}

func (r *report) writeLog(w io.Writer) {
	fmt.Fprintf(w, "\nKERNEL LOG, what concerns this container\n")
	if len(r.KernelLog) == 0 {
		fmt.Fprintf(w, "  nothing\n")
	}
	for _, l := range r.KernelLog {
		fmt.Fprintf(w, "  [%12.6f] %s\n", l.SinceBoot.Seconds(), l.Text)
	}
}
