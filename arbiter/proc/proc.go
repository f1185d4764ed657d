// Package proc reads /proc of processes that may be hostile, stuck or gone.
package proc

import (
	"errors"
	"path/filepath"
	"strconv"
)

// ErrGone says that the process is gone (ENOENT, ESRCH).
var ErrGone = errors.New("process is gone")

// FS is a mounted procfs: FS("/proc").
type FS string

// Path is a file of process pid.
func (fs FS) Path(pid int, elem ...string) string {
	return filepath.Join(append([]string{string(fs), strconv.Itoa(pid)}, elem...)...)
}
