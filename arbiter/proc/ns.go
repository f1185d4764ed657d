package proc

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Namespace is the identity of the process' namespace of a kind ("net",
// "mnt", "pid", "user", "cgroup"): an inode number, equal for two processes
// that share it.
func (fs FS) Namespace(pid int, kind string) (uint64, error) {
	link, err := os.Readlink(fs.Path(pid, "ns", kind))
	if err != nil {
		return 0, fileError(pid, "ns/"+kind, err)
	}
	return parseNamespace(link)
}

// parseNamespace parses "net:[4026531840]".
func parseNamespace(link string) (uint64, error) {
	_, rest, ok := strings.Cut(link, ":[")
	digits, closed := strings.CutSuffix(rest, "]")
	id, err := strconv.ParseUint(digits, 10, 64)
	if !ok || !closed || err != nil {
		return 0, fmt.Errorf("no namespace in %.80q", link)
	}
	return id, nil
}
