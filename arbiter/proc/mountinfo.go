package proc

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// A Mount is one line of /proc/PID/mountinfo.
type Mount struct {
	ID, Parent int
	Root       string // what of the filesystem is mounted: "/"
	Point      string // where, as the process sees it
	Options    string // of this mount: "ro,nosuid"
	FSType     string
	Source     string
	Super      string // of the filesystem: "rw,memory"
}

// Mounts reads /proc/PID/mountinfo.
func (fs FS) Mounts(pid int) ([]Mount, error) { return parse(fs, pid, "mountinfo", parseMounts) }

// parseMounts parses lines such as
//
//	36 35 0:30 / /sys/fs/cgroup/memory rw,relatime shared:15 - cgroup cgroup rw,memory
//
// with any number of fields before the dash. Blanks in paths are \040.
func parseMounts(r io.Reader) ([]Mount, error) {
	var out []Mount
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		before, after, ok := strings.Cut(sc.Text(), " - ")
		b, a := strings.Fields(before), strings.Fields(after)
		if !ok || len(b) < 6 || len(a) < 2 {
			return nil, fmt.Errorf("no mount in %.80q", sc.Text())
		}
		id, err1 := strconv.Atoi(b[0])
		parent, err2 := strconv.Atoi(b[1])
		if err1 != nil || err2 != nil {
			return nil, fmt.Errorf("no mount in %.80q", sc.Text())
		}
		m := Mount{ID: id, Parent: parent, Root: unescape(b[3]), Point: unescape(b[4]), Options: b[5], FSType: a[0], Source: unescape(a[1])}
		if len(a) > 2 {
			m.Super = a[2]
		}
		out = append(out, m)
	}
	if err := sc.Err(); err != nil {
		return nil, err
	}
	return out, nil
}

// unescape undoes the kernel's octal escapes of blank, tab, newline and
// backslash.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
