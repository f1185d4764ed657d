// Package casebook keeps the durable record of cases: one directory a case,
// with case.json, timeline.jsonl and the artifacts.
//
//	STATE/cases/20261121T061502-7f3a/
//	    case.json        identity, rule, facts, plan, steps, verdict, outcome
//	    timeline.jsonl   append-only, one JSON object a line
//	    artifacts/       what the steps produced; NAME.partial while half written
//	    report.html      the case for people
//
// case.json is replaced as a whole (temporary file, fsync, rename, fsync of
// the directory), so a reader finds the old or the new one. Directories are
// 0700 and files 0600: artifacts hold the memory of other people's programs.
//
// A full or read-only disk gives errors and never a hang or a lost case: the
// record lives in memory as well, and every Save tries again.
package casebook

import (
	"time"

	"github.com/arbiterd/arbiter/policy"
)

// Outcome is what happened to the container in the end.
type Outcome string

const (
	OutcomeKill   Outcome = "kill"
	OutcomeResume Outcome = "resume"
	OutcomeNone   Outcome = "none"   // a case that did not hold
	OutcomeKernel Outcome = "kernel" // given back to the kernel
	OutcomeGone   Outcome = "gone"   // the container vanished or the runtime stopped it
)

// A Record is a case as case.json holds it.
type Record struct {
	ID        string             `json:"id"`
	State     string             `json:"state"` // opening, held, steps, waiting, verdict, closed
	Rule      string             `json:"rule"`
	RulePos   policy.Position    `json:"rulePosition"`
	Mode      policy.Mode        `json:"mode"`
	Facts     policy.Facts       `json:"facts"`
	Plan      []string           `json:"plan"` // numbered lines, as `explain` prints them
	Steps     []StepRecord       `json:"steps"`
	Opened    time.Time          `json:"opened"`
	HeldAt    time.Time          `json:"heldAt,omitzero"` // when every task stood still
	Closed    time.Time          `json:"closed,omitzero"`
	Deadline  time.Time          `json:"deadline,omitzero"` // when Then happens at the latest
	Then      policy.VerdictKind `json:"then,omitempty"`
	Verdict   policy.VerdictKind `json:"verdict,omitempty"`
	Operator  string             `json:"operator,omitempty"` // who ordered the verdict, "uid 0"
	Outcome   Outcome            `json:"outcome,omitempty"`
	Why       string             `json:"why,omitempty"` // why this outcome, in words
	Escapes   int                `json:"escapes,omitempty"`
	Artifacts []Artifact         `json:"artifacts"`

	TriggerToHold time.Duration `json:"triggerToHoldNanos,omitempty"`
	HeldFor       time.Duration `json:"heldForNanos,omitempty"`
	RaisedBytes   uint64        `json:"raisedBytes,omitempty"` // granted by a resume
}

// StepRecord is one step's result.
type StepRecord struct {
	Name    string            `json:"name"`
	Action  string            `json:"action"`
	Result  string            `json:"result"` // ok, failed, timeout, preempted, skipped
	Error   string            `json:"error,omitempty"`
	Why     string            `json:"why,omitempty"` // why it was skipped
	Summary string            `json:"summary,omitempty"`
	Details map[string]string `json:"details,omitempty"`
	Started time.Time         `json:"started,omitzero"`
	Elapsed time.Duration     `json:"elapsedNanos,omitempty"`
}

// An Artifact is a file that an action produced.
type Artifact struct {
	Name    string `json:"name"` // ends in .partial if it is only half written
	Step    string `json:"step"`
	Size    int64  `json:"sizeBytes"`
	SHA256  string `json:"sha256,omitempty"`
	Partial bool   `json:"partial,omitempty"`
	Why     string `json:"why,omitempty"` // why it is partial
}

// An Entry is one line of timeline.jsonl.
type Entry struct {
	At   time.Time         `json:"at"`
	What string            `json:"what"` // "held", "step heap-dump ok", ...
	Data map[string]string `json:"data,omitempty"`
}

// A Full is a case with its timeline.
type Full struct {
	*Record
	Timeline []Entry `json:"timeline"`
}

// A Listing is an answer to a Filter.
type Listing struct {
	Cases  []*Record `json:"cases"`
	Broken []string  `json:"broken,omitempty"` // why cases are missing from it
}
