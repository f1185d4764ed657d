// Package dump writes ELF core files of processes that must not run: those of
// a container that stands still at its memory limit.
//
// The work is done by a helper process (`arbiterd dump`, see Main), so that a
// stuck page, a hostile process or a crash of the writer costs the helper and
// not the daemon. It opens no path but those of /proc: the core files are
// inherited descriptors. It dies with its parent, at its deadline, and when
// its standard input ends.
//
// Stopping. Every thread of the container is seized with PTRACE_SEIZE, which
// sends no signal and leaves nothing behind when the tracer dies, and asked to
// trap with PTRACE_INTERRUPT. Tasks frozen by cgroup v2 trap and stay frozen.
// Tasks in the v1 freezer trap only after a thaw, on their way out of the
// kernel and before they run any code of their own: the daemon thaws, waits
// for the traps and freezes again at once (see Hold), so that a helper that
// dies later leaves a frozen container behind. All processes are stopped
// before the first is written: the cores of one container show one instant.
//
// Memory is read with process_vm_readv, only where the page tables have a page
// or a swap entry: reading a page that was never touched may charge it to the
// very cgroup that is at its limit. Shared memory is read through its file
// (/proc/PID/map_files), where holes can be told from data without a charge.
// Never-touched memory becomes a hole in the file.
//
// A core that could not be completed says so: Report.Missing, and a note of
// the owner "ARBITER" in the file itself (readelf -n shows it).
package dump
