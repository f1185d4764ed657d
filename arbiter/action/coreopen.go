package action

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/arbiterd/arbiter/arbiter/proc"
)

// openCommand is the command line with which a debugger opens a core. A
// debugger needs the very binaries that ran: those of a container lie in its
// image, unpacked to $ROOT by whoever looks.
func openCommand(env Env, pid int, exe, core string, compressed bool) string {
	exe = printable(strings.TrimSuffix(exe, " (deleted)"), 1024)
	unpack := ""
	if compressed {
		unpack = fmt.Sprintf("zstd -d --sparse %s.zst && ", quote(core))
	}
	binary, sysroot := quote(exe), ""
	if ownRoot(env.Proc, pid) {
		binary, sysroot = `"$ROOT"`+quote(exe), `-iex "set sysroot $ROOT" `
	}
	switch proc.Runtime(env.Facts.Runtime) {
	case proc.JVM:
		return fmt.Sprintf("%sjhsdb jstack --exe %s --core %s", unpack, binary, quote(core))
	case proc.Go:
		return fmt.Sprintf("%sdlv core %s %s  # or: gdb %s%s %s", unpack, binary, quote(core), sysroot, binary, quote(core))
	}
	return fmt.Sprintf("%sgdb %s%s %s", unpack, sysroot, binary, quote(core))
}

// ownRoot reports whether a process sees other files than we do.
func ownRoot(fs proc.FS, pid int) bool {
	theirs, err := fs.Namespace(pid, "mnt")
	if err != nil {
		return true
	}
	ours, err := fs.Namespace(os.Getpid(), "mnt")
	root, rerr := os.Readlink(filepath.Join(fs.Path(pid), "root"))
	return err != nil || rerr != nil || ours != theirs || root != "/"
}

// quote makes one word of a shell's command line.
func quote(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+:@") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
