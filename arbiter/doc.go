// Package arbiter is the engine: it follows containers, arms their guards,
// and takes each case from its trigger to a closed record.
//
// # The path of a case
//
// A walk through the files in the order in which a case passes them:
//
//	source.go      containers arrive from containerd, NRI or plain cgroups
//	containers.go  each is matched against the policy and armed
//	triggers.go    an event of package cgroup opens a case
//	case.go        one goroutine carries the case out
//	transition.go  a pure function decides what comes next
//	runner.go      the plan's operations and steps
//	verdict.go     kill, resume, hold, or giving back to the kernel
//
// Decisions are made in transition, which sees no kernel, no clock and no
// disk; everything else only does what it was told and reports how it went.
//
// # What is never waited for
//
// The event handler runs in the one goroutine that watches all cgroups, so it
// takes a mutex and starts goroutines and does nothing else. The hold path,
// from event to frozen, touches no disk: the casebook hears of a case once its
// container stands still. A case whose record cannot be written goes on
// without one; the verdict is worth more than its record.
package arbiter
