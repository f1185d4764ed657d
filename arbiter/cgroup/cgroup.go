package cgroup

import (
	"context"
	"errors"
	"time"

	"github.com/arbiterd/arbiter/policy"
)

var (
	// ErrGone says that the cgroup vanished (ENOENT, ENODEV, ESRCH). It is an
	// outcome of an operation, not a failure.
	ErrGone = errors.New("cgroup is gone")
	// ErrUsage says that a limit was not lowered because usage does not fit
	// under it: the kernel would refuse (v1) or kill at once (v2).
	ErrUsage = errors.New("usage does not fit under the limit")
	// ErrLocked says that another daemon owns the cgroup's undo record.
	ErrLocked = errors.New("owned by another daemon")
	// ErrNotSupported says that this kernel or host lacks the means.
	ErrNotSupported = errors.New("not supported here")
)

// A Cgroup is one container's memory cgroup together with the ancestors whose
// limits bind it. Methods may be called from any goroutine; those that change
// the kernel's state are serialized per Cgroup, write the undo record first,
// and return ErrGone once the cgroup is removed.
type Cgroup interface {
	// Path is relative to the hierarchy's mount, with a leading slash.
	Path() string
	// ID is the directory's inode: a path that is reused is another cgroup.
	ID() uint64
	// Usage reads the present figures. It never blocks on the container.
	Usage() (Usage, error)
	// Pids lists the processes of the cgroup and all its descendants.
	Pids() ([]int, error)
	// Counters reads the kernel's own event counters.
	Counters() (Counters, error)

	// Arm keeps the kernel from killing first, here and at every ancestor with
	// a limit, and starts events. Arming again with other options adjusts.
	// What cannot be had is told in Status.Missing, not as an error; an error
	// means that nothing was changed.
	Arm(ctx context.Context, o ArmOptions) (Status, error)
	// Disarm undoes everything that the record holds: limits, flags, scores,
	// borrowed and granted room. A frozen cgroup is thawed: the kernel decides
	// then as it would have without us. The record is removed. Idempotent.
	Disarm(ctx context.Context) error
	// Status is the guard's present state, without touching the kernel.
	Status() Status

	// Freeze stops every task and returns once the kernel says so. It is the
	// hold path: no disk, few allocations, no wait but for the freezer.
	// On error nothing is left half frozen. v2: the scores are put back once
	// the cgroup stands still.
	Freeze(ctx context.Context) error
	// Thaw lets the tasks run again (v2: guarded again first).
	Thaw(ctx context.Context) error
	// Guarded runs f with the container protected against kernel kills that
	// foreign charges to a frozen cgroup would cause (v2; on v1 it only runs f).
	Guarded(ctx context.Context, f func() error) error

	// Borrow sets the limit, and that of every ancestor that binds, to its
	// original plus what was granted plus bytes, outermost first. Bytes
	// replaces what was borrowed before. Borrowed room is always given back.
	Borrow(ctx context.Context, bytes uint64) error
	// Restore gives borrowed and granted room back. ErrUsage if usage does not
	// fit: then the limit is lowered as far as usage allows, and the caller
	// tries again later (or, for borrowed room, kills).
	Restore(ctx context.Context) error
	// Grant is Borrow for a resume verdict: bytes above the original limit
	// that may outlive the case, instead of all that was lent before. On
	// Disarm it is lowered if usage fits; else it is left and the record
	// dropped.
	Grant(ctx context.Context, bytes uint64) error

	// Kill ends every process and returns once the cgroup is empty and its
	// memory is back, or ctx is done. It works frozen or not. The kernel's own
	// out-of-memory kill is used where it tells the truer story (v2).
	Kill(ctx context.Context) error
	// Close lets go of descriptors. An armed cgroup is disarmed first.
	Close() error
}

// ArmOptions say how a cgroup is to be guarded.
type ArmOptions struct {
	// Hold asks for a guard: limit events, and a kernel that does not kill
	// first. Without it the cgroup is only watched (samples).
	Hold bool
	// NotAtLimit says that the guard is for other triggers' holds: nobody
	// answers EventLimit with one. Where there are no scores to guard with
	// (v2), the cgroup is not stopped before its limit then.
	NotAtLimit bool
	// Observe asks for EventLimit without a guard: nothing in the kernel is
	// changed and the kernel decides as ever (v1: the eventfd without the
	// flag; v2: oom in memory.events). Ignored where Hold is set.
	Observe bool
	// AlwaysGuard is the policy's guard = "always" (v2).
	AlwaysGuard bool
	// Sample asks for EventSample: the rule's trigger is usage or growth.
	Sample bool
	// Pressure asks for EventPressure when PSI stays over a mark: at least
	// PressurePercent of the time in PressureOver. PressureFull picks "full"
	// instead of "some". Zero PressureOver: none.
	PressureFull    bool
	PressurePercent float64
	PressureOver    time.Duration
}

// State is a guard's state as `arbiterctl guards` and arbiter_guards show it.
type State string

const (
	Unarmed State = "unarmed"
	Watched State = "watched" // samples only
	Armed   State = "armed"   // the kernel tells us first
	Guarded State = "guarded" // v2: scores are −1000 now
	HeldNow State = "held"    // frozen by us
	Partial State = "partial" // armed without some of the means: see Missing
	Failed  State = "failed"  // could not be armed: see Missing
)

// Status is what a guard is and what it lacks.
type Status struct {
	State    State
	Freezer  string   // which freezer a hold will use: "cgroup.freeze", "freezer /path", "own freezer", "SIGSTOP"
	Missing  []string // each a sentence: what is not covered and why
	Borrowed uint64   // bytes above the original limit, borrowed
	Granted  uint64   // bytes above the original limit, granted
}

// Usage is a cgroup's memory as the kernel counts it, in bytes.
type Usage struct {
	Current       uint64       // usage_in_bytes or memory.current
	Unreclaimable uint64       // Current less file cache (shmem is no cache) and reclaimable slab
	Swap          uint64       // in swap; 0 where swap accounting is off
	Peak          uint64       // the kernel's high-water mark, 0 where it keeps none
	Limit         policy.Limit // the tightest on the way up, ours or an ancestor's
	LimitCgroup   string       // the path where that limit is set
	OwnLimit      policy.Limit // this cgroup's own
	BaseLimit     policy.Limit // Limit as it would be without what we lent
}

// Counters are event counts since the cgroup was made, summed over the cgroup
// and its descendants.
type Counters struct {
	OOM     uint64 // v2 memory.events oom; v1: 0
	OOMKill uint64 // processes that the kernel killed
}

// EventKind tells what was seen.
type EventKind uint8

const (
	// EventLimit: the limit is reached and nothing can be reclaimed, or it is
	// so near that a failed system call would come before the event.
	EventLimit EventKind = iota
	// EventSample: a reading of the shared sampler.
	EventSample
	// EventPressure: PSI was over the armed mark.
	EventPressure
	// EventLimitChanged: somebody else wrote a limit; it was adopted.
	EventLimitChanged
	// EventFreezerChanged: somebody else froze or thawed it behind us.
	EventFreezerChanged
	// EventEscape: the kernel killed inside a guarded cgroup all the same.
	EventEscape
	// EventEmpty: the last process left.
	EventEmpty
	// EventGone: the directory was removed.
	EventGone
	// EventNotOurs: an ancestor's limit was hit by a process of a cgroup that
	// is not armed; the kernel was left to decide.
	EventNotOurs
)

// An Event is one observation about an armed or watched cgroup.
type Event struct {
	Kind   EventKind
	Cgroup Cgroup    // the container's cgroup that the event is about
	At     time.Time // when the daemon woke for it
	Level  string    // limit: the path of the cgroup whose limit was hit
	Why    string    // in words, with the figures it was judged by
	Usage  Usage     // sample, and what is known for the others

	// BytesPerSecond is the slope over the sampler's recent past, and
	// TimeToLimit what it leaves; sample only. TimeToLimit is negative while
	// usage does not grow.
	BytesPerSecond float64
	TimeToLimit    time.Duration
}
