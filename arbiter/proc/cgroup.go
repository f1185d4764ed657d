package proc

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"
)

// A Membership is one line of /proc/PID/cgroup: where the process is in one
// hierarchy.
type Membership struct {
	Controllers []string // empty: the v2 hierarchy; "name=..." for a named v1 one
	Path        string   // from the root of our cgroup namespace; may begin with "/.." outside of it
}

// Cgroups reads /proc/PID/cgroup. The kernel takes none of the target's locks
// that could be held while it is stuck.
func (fs FS) Cgroups(pid int) ([]Membership, error) { return parse(fs, pid, "cgroup", parseCgroup) }

// parseCgroup parses lines such as
//
//	9:memory:/kubepods/burstable/pod1
//	4:cpu,cpuacct:/
//	0::/system.slice/x.service
//
// A path may hold colons, but no newline: the kernel writes it as it is, so a
// line that does not look like this is an error rather than skipped.
func parseCgroup(r io.Reader) ([]Membership, error) {
	var out []Membership
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		f := strings.SplitN(sc.Text(), ":", 3)
		if len(f) != 3 || !strings.HasPrefix(f[2], "/") {
			return nil, fmt.Errorf("no membership in %.80q", sc.Text())
		}
		m := Membership{Path: strings.TrimSuffix(f[2], " (deleted)")}
		if f[1] != "" {
			m.Controllers = strings.Split(f[1], ",")
		}
		out = append(out, m)
	}
	if err := sc.Err(); err != nil {
		return nil, err
	}
	return out, nil
}

// Memory finds the hierarchy that accounts memory: v1's memory controller if
// there is one, else v2.
func Memory(ms []Membership) (m Membership, ok bool) {
	for _, m := range ms {
		if slices.Contains(m.Controllers, "memory") {
			return m, true
		}
	}
	for _, m := range ms {
		if len(m.Controllers) == 0 {
			return m, true
		}
	}
	return Membership{}, false
}
