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
package cgroup
