// Package policy is Arbiter's policy language: it decodes rules from TOML,
// lints them, matches containers, and turns a rule and a set of facts into a
// plan. It is pure: no files, no network, no clock, no kernel, no log, so the
// daemon, `arbiterctl lint`, `explain` and `replay` cannot disagree.
package policy

import (
	"fmt"
	"time"

	"github.com/arbiterd/arbiter/cri"
)

// A Position is a place in a policy file. Line and Column count from 1.
type Position struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column,omitempty"`
}

func (p Position) String() string {
	if p.Column == 0 {
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// A Policy is a decoded, valid set of rules in the order in which they are tried.
type Policy struct {
	Rules  []*Rule
	Digest string // of the files' names and contents, as arbiter_policy_info shows it
}

// Mode says what a rule may do.
type Mode string

const (
	Enforce Mode = "enforce" // hold, act, decide
	Observe Mode = "observe" // no guard; record what would have been done
	Off     Mode = "off"     // the container is exempt
)

// GuardMode says when a v2 cgroup is guarded by oom_score_adj.
type GuardMode string

const (
	GuardAuto   GuardMode = "auto"   // near the limit only
	GuardAlways GuardMode = "always" // from the start: for populate-heavy loads and old kernels
)

// A Rule is one [[rule]]: whom it matches, what opens a case, the steps that
// run and the verdict.
type Rule struct {
	Name          string
	Mode          Mode
	Guard         GuardMode
	AllowFUSE     bool          // also match containers that serve FUSE: their clients hang during a hold
	ProbeDeadline time.Duration // shortest liveness deadline, 0: not given
	ResumeWithin  time.Duration // held longer, a resume becomes Otherwise; 0: not given
	Match         Match
	Trigger       Trigger
	Steps         []Step
	Verdict       Verdict
	Pos           Position
}

// Match says which containers a rule is for. All keys given must match; a list
// matches if one of its globs does.
type Match struct {
	All          bool
	Namespace    []string
	Pod          []string
	Container    []string
	Image        []string
	Labels       map[string]string
	Annotations  map[string]string
	QoS          []string
	Cgroup       []string
	Runtime      []string // decided when the trigger fires, not before
	LimitAtLeast Size     // bytes only
	LimitAtMost  Size     // bytes only
	Not          *Match   // excluded if any of its keys matches
}

// TriggerKind is the condition that opens a case.
type TriggerKind string

const (
	OnLimit    TriggerKind = "limit"    // the hard limit is reached and nothing can be reclaimed
	OnUsage    TriggerKind = "usage"    // unreclaimable memory / limit
	OnPressure TriggerKind = "pressure" // PSI of the cgroup
	OnGrowth   TriggerKind = "growth"   // at the current slope the limit is near
	OnManual   TriggerKind = "manual"   // an operator's `arbiterctl pause`; never written in a rule
)

// Trigger is a rule's [rule.trigger].
type Trigger struct {
	On          TriggerKind
	At          float64       // usage: percent of the limit
	Some, Full  float64       // pressure: percent of the time; one of them is set
	Over        time.Duration // pressure: the window
	LimitWithin time.Duration // growth
	Hold        bool
	Cooldown    time.Duration
}

// OnFailure says where a case goes on after a failed step.
type OnFailure string

const (
	Continue   OnFailure = "continue"  // with the next step
	ToVerdict  OnFailure = "verdict"   // skip to the verdict
	ToFallback OnFailure = "otherwise" // skip to Verdict.Otherwise
)

// A Step is one configured use of an action.
type Step struct {
	Action    string
	Name      string // unique in its rule; the action's name where none was given
	Timeout   time.Duration
	Raise     Size // borrowed for this step only
	OnFailure OnFailure
	IfFailed  []string // runs only if one of these earlier steps failed
	Options   Options  // the action's own keys: one of the *Options types of this package
	Pos       Position
}

// VerdictKind is what a rule wants for the container in the end.
type VerdictKind string

const (
	Kill   VerdictKind = "kill"
	Resume VerdictKind = "resume"
	Hold   VerdictKind = "hold" // wait for an operator
	None   VerdictKind = "none" // only where the trigger does not hold
)

// KillScope says how much of the container a kill ends.
type KillScope string

const (
	KillContainer KillScope = "container"
	KillLargest   KillScope = "largest"
)

// Verdict is a rule's [rule.verdict].
type Verdict struct {
	Do        VerdictKind
	Kill      KillScope
	TermGrace time.Duration
	Raise     Size // resume: of the original limit, not compounding
	RaiseFor  time.Duration
	Resumes   int // at most, per container
	HoldFor   time.Duration
	Deadline  time.Duration // for all steps together
	Otherwise VerdictKind
}

// Needs is the state in which an action wants to find the container.
type Needs string

const (
	Frozen  Needs = "frozen"
	Running Needs = "running"
	Any     Needs = "any"
)

// Options are one action's own keys. Each action has one type.
type Options interface {
	// Needs is the state that a step with these options needs.
	Needs() Needs
}

// Facts is the immutable snapshot that a plan is made from.
type Facts struct {
	At                 time.Time     `json:"at"`
	Container          cri.Container `json:"container"`
	Trigger            TriggerKind   `json:"trigger"`
	Why                string        `json:"why"` // the trigger in words, with its figures
	CgroupVersion      int           `json:"cgroupVersion"`
	Limit              Limit         `json:"limitBytes"`            // the tightest on the way up
	LimitCgroup        string        `json:"limitCgroup,omitempty"` // where that limit is set
	UsageBytes         uint64        `json:"usageBytes"`
	UnreclaimableBytes uint64        `json:"unreclaimableBytes"`
	Runtime            string        `json:"runtime,omitempty"` // jvm, go, node, python, dotnet, native
	Resumes            int           `json:"resumes"`           // granted to this container so far
	InCooldown         bool          `json:"inCooldown"`
	BorrowableBytes    Limit         `json:"borrowableBytes"` // what the budget still lends; none: unlimited
}

// OpKind is one kind of operation in a plan.
type OpKind string

const (
	OpFreeze  OpKind = "freeze"
	OpThaw    OpKind = "thaw"
	OpRaise   OpKind = "raise"   // borrow Bytes above the limit
	OpRestore OpKind = "restore" // give back what was borrowed
	OpStep    OpKind = "step"
)

// An Op is one line of a plan before the verdict.
type Op struct {
	Kind  OpKind
	Step  int    // index into Plan.Steps: the step this operation belongs to; -1 for none
	Bytes uint64 // raise
}

// A Plan is a rule applied to facts: every step, freeze, thaw, raise and
// restore in order, then the verdict. It is pure data. Steps always begins
// with a snapshot. An Op whose step is skipped at run time is skipped with it.
type Plan struct {
	Rule     string
	Pos      Position
	Hold     bool
	Steps    []Step
	Ops      []Op
	Verdict  Verdict       // as decided from the facts
	Do       VerdictKind   // what the plan ends in if nothing fails
	Why      string        // why Do differs from Verdict.Do ("3 of 3 resumes used"), else empty
	MaxHold  time.Duration // the longest that the container can stand still, hold-for included
	Borrowed uint64        // the most bytes borrowed at once
}
