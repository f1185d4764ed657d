// Package cgroup arms, watches, freezes, raises and kills memory cgroups, on
// cgroup v1 and v2. It is the one place that knows how the two differ.
//
// # What must never be lost
//
// An armed cgroup is one in which the kernel does not kill. If the daemon died
// and nobody undid that, the container would hang for ever. So everything that
// is to be undone stands on the cgroup itself: in its undo record (Record), an
// extended attribute that is written before each change and that lives and dies
// with the directory. The owner holds a flock on the directory, which the
// kernel drops with the owner. Release needs nothing but these two.
//
// A value is undone only where the kernel still shows one that the record
// names. What a container runtime or the kubelet wrote meanwhile stays.
//
// # Version 1
//
// The flag memory.oom_control makes a page fault that cannot be charged sleep
// instead of killing. Which flag counts is that of the cgroup whose limit is
// hit, so every ancestor with a limit is armed too: in a one-container pod the
// pod's limit equals the container's and is hit first.
//
// A sleeper does not freeze: the freezer stays in FREEZING, in which runc
// spins. Raising the limit by 4096 bytes wakes it, and it freezes on its way
// back to user space, before it touches a page. Wake-ups get lost, hence the
// repetition every 2 ms; the limit is put back in between and at the end, so
// that the room stays one page. A raise wakes sleepers at the same cgroup, at
// its ancestors and below, whoever's limit was hit, so the container's own limit
// is the one to nudge. Measured with 1 and 50 threads, 100 holds each: no page
// touched, no kill.
//
// Children inherit the flag when they are created, without a record. The daemon
// clears it on every new child, and a release clears it below every cgroup
// whose record says that it was ours.
//
// Charges inside a system call do not sleep, they fail. Usage thresholds below
// the limit are there for these; see ladderHorizon. Pipes and sockets are
// kernel memory, which moves past thresholds unseen: a container that runs into
// its limit by these alone sees the error before it is held. A signal that
// arrives at the limit needs a page for its frame, which the kernel cannot wait
// for there; the process gets a SIGSEGV then. Holding early helps here too.
//
// While a container is held for the limit of an ancestor, others that reach
// that limit sleep until the verdict: it makes room for them, one way or the
// other.
//
// The notification of a limit is an eventfd; new children and foreign writes
// are told by inotify; the last process' end by a pidfd. All lie in one epoll
// instance, whatever the number of cgroups.
//
// # Version 2
//
// There is no flag. What keeps the kernel from killing is oom_score_adj −1000 on
// every process (the guard); a task that cannot be charged then spins in the
// page fault, where it can be frozen and killed, and system calls fail as on
// version 1. The oom count of memory.events.local tells when. But a guarded
// task is invisible to the node's own out-of-memory killer too: a guarded hog on
// a node that ran out killed bystanders and then panicked the machine. So the
// guard is put up late, taken back early, bounded in number (FS.MaxGuarded),
// and dropped when the node runs low (FS.DropGuards).
//
// When, is told by memory.high a little below the limit; see band and onHigh. A
// fixed one starves a container that lives above it (2 of 95 loops a second at
// 92 % of the limit), so it moves up as long as growth is slow. A guard at its
// top alone lost 15 of 20 sudden allocators; one when the limit is less than two
// seconds away lost none. While the guard stands memory.high is lifted: a task
// asleep in its throttle freezes only after up to two seconds.
//
// Once frozen the scores are put back: nothing charges, and 43 holds of 30 s
// saw no kill. Whatever charges a held container from outside (a core dump may,
// and so does every write of memory.max) happens under the guard again
// (Guarded), and a thaw puts it up first. Lowering memory.max below usage
// kills at once, where version 1 says EBUSY: it is lowered as far as usage
// allows, guarded.
//
// The limits that are guarded are the container's own, its parent's, which in a
// one-container pod is hit first, and the tightest. An outer guard stands before
// an inner one and does not go before it. Else the kernel would find the pause
// process alone to kill. Within one, exemptions go up from the inside out, and
// come down with the child that grew first, for the same reason.
//
// What is given back gets its scores at every level before any limit, and the
// limits from the inside out. A write of memory.max below usage kills one
// process after the other until the memory of the first is back, so the limit
// first goes down to what is used: the next charge kills one. Only who charges
// nothing for a second is killed by the write.
//
// A process that may lower its score keeps the right to after the guard unless
// somebody with CAP_SYS_RESOURCE writes it anew (oom_score_adj_min, which no
// file shows). So every process gets its score written, also one that has given
// itself another meanwhile; a higher one it keeps.
//
// The verdict to kill has the kernel do it: no swap, memory.oom.group, a
// memory.max of 1 MiB. memory.events, the kernel log, the runtime and the
// kubelet then tell the same story. A signal pending in the writing thread makes
// that write return success before anything was killed (8 of 20), hence
// undisturbed; after a second cgroup.kill ends what is left.
//
// Without CAP_SYS_RESOURCE no score can be lowered. The limit is then raised
// while the tasks are being stopped, at the first notice of memory.high, and
// lowered to what is used once they stand; see slackOf. One large populate or
// mlock is not covered. Linux before 6.1 does not throttle inside a system call:
// there, and for such loads, ArmOptions.AlwaysGuard guards from the start.
//
// Who only observes is told of a limit by the kernel's kill: by the time that
// anybody could look, usage has dropped.
//
// # What version 2 was measured to do
//
// In QEMU without hardware virtualization, memleak's kinds anon, thp, populate,
// populate-thp, shm, pipe, mlock, read and mixed (with page cache), with 1, 8
// and 32 threads at a limit of 256 MiB, 20 rounds: all 540 runs on 6.1 and all
// 540 on 6.12 were held, frozen and alive, with no kernel kill, and memory.peak
// at the limit (the kernel itself goes a few pages beyond while it reclaims).
// 533 and 538 were held again after a raise; the others, populate, mlock and
// read with many threads, had ended by themselves on the error that they saw at
// the limit. Such errors are the rule inside system calls: mmap(MAP_POPULATE)
// falls short, madvise, mlock, read, write and pipe fail, as they do at a limit
// without a guard. With one thread, anon, thp and shm saw none in 119 of 120
// runs; with more, an mmap, madvise or memfd beside the fault failed in up to 17
// runs of 20.
//
// 5.10, with memleak's 8 kinds that it has: 480 of 480 held with AlwaysGuard, and
// 480 of 480 without, since usage is looked at four times a second near the
// limit. That is luck of a slow machine: 5.10 throttles nothing inside a system
// call, and one populate takes 512 MiB in half a second.
//
// From the last page that fitted to all standing still, with the bare poll and
// freeze taking turns in one boot: medians 17.6 and 12.0 ms on 6.1, 14.3 and
// 12.7 on 6.12, 18.9 and 12.9 on 5.10, 15 of each.
//
// A load that only fills page cache ran at 104 % of its speed without us on 6.1
// (quartiles 100 and 106) and no slower on 6.12, and was never guarded. A
// container that lives at 92 % of its limit ran at 100 % (98 and 107) and 107 %
// (101 and 110), guarded for 0.0 % of the time.
//
// # Samples
//
// Usage, growth and pressure, and the moves of memory.high, come from one
// goroutine with one timer on a grid of 50 ms, and of a second for what is far
// from its limit: it is looked at rarely, and the number of cgroups hardly
// raises the number of wake-ups (40 a second with 100 of them, 54 with 1000,
// at 0.7 % of a core).
package cgroup
