package dump

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Bits of a coredump filter, core(5).
const (
	anonPrivate = 1 << 0
	anonShared  = 1 << 1
	filePrivate = 1 << 2
	fileShared  = 1 << 3
	elfHeaders  = 1 << 4
	hugePrivate = 1 << 5
	hugeShared  = 1 << 6
)

// DefaultFilter is the kernel's own default: private and shared anonymous
// memory, ELF headers and private huge pages. Clean pages of files that still
// exist are left to the files.
const DefaultFilter uint64 = anonPrivate | anonShared | elfHeaders | hugePrivate

// A content says how much of a mapping goes into the core.
type content uint8

const (
	nothing content = iota
	header          // the first page: debuggers find the build id there
	whole
)

// A chooser decides what of each mapping is dumped.
type chooser struct {
	dir    procDir
	filter uint64
	remote map[string]bool // devices of file systems whose server may be the container itself
}

func newChooser(dir procDir, filter uint64) (chooser, error) {
	mounts, err := dir.read("mountinfo")
	if err != nil {
		return chooser{}, err
	}
	return chooser{dir, filter, remoteDevices(string(mounts))}, nil
}

// remoteDevices lists, by "major:minor" as maps prints it, the file systems
// that ask another process or machine for their pages. A FUSE server may be
// frozen together with its client: asking it would hang.
func remoteDevices(mountinfo string) map[string]bool {
	remote := map[string]bool{}
	for line := range strings.Lines(mountinfo) {
		before, after, _ := strings.Cut(line, " - ")
		f, kind := strings.Fields(before), strings.Fields(after)
		if len(f) < 3 || len(kind) < 1 {
			continue
		}
		var major, minor int
		if _, err := fmt.Sscanf(f[2], "%d:%d", &major, &minor); err != nil {
			continue
		}
		name, _, _ := strings.Cut(kind[0], ".")
		switch name {
		case "fuse", "fuseblk", "nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "afs":
			remote[fmt.Sprintf("%02x:%02x", major, minor)] = true
		}
	}
	return remote
}

// content decides about v as the kernel's vma_dump_size does, with two
// exceptions: memory that only a debugger could force out of a device is left
// out, and a private mapping of a deleted file is dumped whole, since nothing
// else has it any more.
func (c chooser) content(v vma) content {
	switch {
	case v.Name == "[vdso]":
		return whole
	case v.DontDump, v.IO, strings.HasPrefix(v.Name, "[vvar"), v.Name == "[vsyscall]":
		return nothing
	case v.Huge:
		return c.when(pick(v.Shared, hugeShared, hugePrivate))
	case v.Shared:
		return c.when(pick(c.deleted(v), anonShared, fileShared))
	case (v.AnonKiB > 0 || v.SwapKiB > 0) && c.filter&anonPrivate != 0:
		return whole
	case !v.file():
		return nothing
	case c.filter&filePrivate != 0, c.deleted(v):
		return whole
	case c.filter&elfHeaders != 0 && v.Offset == 0 && v.Read:
		return header
	}
	return nothing
}

func (c chooser) when(bit uint64) content {
	if c.filter&bit != 0 {
		return whole
	}
	return nothing
}

func pick(cond bool, yes, no uint64) uint64 {
	if cond {
		return yes
	}
	return no
}

// filePath is the link in /proc to the very file of a mapping. It needs
// CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE in the first user namespace.
func (c chooser) filePath(v vma) string {
	return c.dir.path(fmt.Sprintf("map_files/%x-%x", v.Start, v.End))
}

// deleted reports whether the mapping's file has no name: removed, or memory
// of the kernel's own tmpfs (memfd, System V, MAP_SHARED|MAP_ANONYMOUS).
func (c chooser) deleted(v vma) bool {
	st, ok := c.stat(v)
	return ok && st.Nlink == 0
}

// stat looks at the mapping's file without asking a remote server.
func (c chooser) stat(v vma) (unix.Statx_t, bool) {
	var st unix.Statx_t
	if !v.file() || c.remote[v.Device] {
		return st, false
	}
	err := unix.Statx(unix.AT_FDCWD, c.filePath(v), unix.AT_STATX_DONT_SYNC, unix.STATX_BASIC_STATS, &st)
	return st, err == nil
}

// open opens the file of a mapping for reading, or nil if that is not safe:
// only regular files can be opened without a side effect.
func (c chooser) open(v vma) *os.File {
	st, ok := c.stat(v)
	if !ok || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil
	}
	f, err := os.OpenFile(c.filePath(v), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil
	}
	return f
}
