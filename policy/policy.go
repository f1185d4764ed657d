// Package policy is Arbiter's policy language: it decodes rules from TOML,
// lints them, matches containers, and turns a rule and a set of facts into a
// plan. It is pure: no files, no network, no clock, no kernel, no log, so the
// daemon, `arbiterctl lint`, `explain` and `replay` cannot disagree.
//
// # The way of a policy
//
//	policy.go, options.go  the types; their struct tags are the language
//	tomlscan.go, index.go  a position for every key (the library has none)
//	strict.go              TOML into tagged structs, arbiter.toml's too
//	decode.go, hints.go    rules, and each step against its action's own keys
//	check*.go, shadow.go   what is wrong with a rule, alone and among others
//	lint.go                what a node's memory and budgets add to that
//	match.go, choose.go    which rule a container gets, and why not another
//	plan.go                a rule and facts into steps, freezes and raises
//	explain.go, replay.go  the same decisions in words
//	reference.go, schema.go  manual page, reference and JSON Schema from the tags
//
// A key is added by a field with its tags, a check if one key shows more than
// its type does, a case in testdata/lint, and `go generate`.
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

	index *ruleIndex // nil in a policy that Decode did not make
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
//
// The struct tags of this file and of options.go are the language: decoder,
// reference and JSON Schema read them (see field).
type Rule struct {
	Name          string        `toml:"name" required:"true" doc:"Names the rule in every list, message and metric. No two rules share a name."`
	Mode          Mode          `toml:"mode" default:"enforce" values:"enforce|observe|off" doc:"enforce: hold, act, decide. observe: no guard; record what would have been done. off: the container is exempt. observe and off are final: no later rule is tried."`
	Guard         GuardMode     `toml:"guard" default:"auto" values:"auto|always" doc:"cgroup v2: always protects the container from the start, for loads that populate much at once and for kernels before 6.1; auto only near the limit."`
	AllowFUSE     bool          `toml:"allow-fuse" also:"false" doc:"Also hold containers that serve a FUSE file system. Its clients hang as long as the hold lasts."`
	ProbeDeadline time.Duration `toml:"probe-deadline" doc:"The shortest time after which a liveness probe kills the container. Held longer, the kubelet may restart it; lint and explain warn."`
	ResumeWithin  time.Duration `toml:"resume-within" doc:"Held longer than this, a resume becomes verdict.otherwise: leases and clients are lost by then."`
	Match         Match         `toml:"match" required:"true" doc:"Which containers the rule is for. All keys given must match; a list matches if one of its globs does."`
	Trigger       Trigger       `toml:"trigger" also:"the limit" doc:"What opens a case."`
	Steps         []Step        `toml:"step" also:"the snapshot alone" doc:"What is done, in this order. A snapshot is always taken first."`
	Verdict       Verdict       `toml:"verdict" also:"kill" doc:"What becomes of the container in the end."`
	Pos           Position

	compiled *matcher
}

// Match says which containers a rule is for. All keys given must match; a list
// matches if one of its globs does. What a container does not have (a pod, a
// label) no glob matches.
type Match struct {
	All          bool              `toml:"all" also:"false" doc:"true instead of keys: every container."`
	Namespace    []string          `toml:"namespace" doc:"Globs on the pod's namespace."`
	Pod          []string          `toml:"pod" doc:"Globs on the pod's name."`
	Container    []string          `toml:"container" doc:"Globs on the container's name in its pod."`
	Image        []string          `toml:"image" doc:"Globs on the image's full name; * crosses slashes here."`
	Labels       map[string]string `toml:"labels" doc:"Pod labels: each key given must be there with a value that its glob matches."`
	Annotations  map[string]string `toml:"annotations" doc:"Pod annotations, like labels."`
	QoS          []string          `toml:"qos" values:"guaranteed|burstable|besteffort" doc:"The pod's quality of service class."`
	Cgroup       []string          `toml:"cgroup" doc:"Globs on the cgroup's path from the mount, with its leading slash. * and ? stop at a slash, ** crosses levels."`
	Runtime      []string          `toml:"runtime" values:"jvm|go|node|python|dotnet|native" doc:"What the largest process is. Decided when the trigger fires, not before."`
	LimitAtLeast Size              `toml:"limit-at-least" unit:"bytes" doc:"Only containers whose limit is at least this; a container without a limit has more than any."`
	LimitAtMost  Size              `toml:"limit-at-most" unit:"bytes" doc:"Only containers whose limit is at most this."`
	Not          *Match            `toml:"not" doc:"The same keys: a container is excluded if any one of them (and of the labels and annotations) matches."`
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
	On          TriggerKind   `toml:"on" default:"limit" values:"limit|usage|pressure|growth" doc:"limit: the hard limit is reached and nothing can be reclaimed. usage: unreclaimable memory reaches a share of the limit. pressure: the cgroup's PSI stays over a mark. growth: at its present slope the limit is near."`
	At          float64       `toml:"at" unit:"percent" doc:"usage, required there: unreclaimable memory as a share of the limit."`
	Some        float64       `toml:"some" unit:"percent" doc:"pressure: the share of the time in which some task waits for memory. Either this or full is required."`
	Full        float64       `toml:"full" unit:"percent" doc:"pressure: the share of the time in which all tasks wait for memory."`
	Over        time.Duration `toml:"over" also:"10s for pressure" doc:"pressure: the window that the share is measured over, 500ms to 10s (the kernel's bounds)."`
	LimitWithin time.Duration `toml:"limit-within" doc:"growth, required there: the case opens when the limit is less than this away."`
	Hold        bool          `toml:"hold" also:"true for limit, false for the others" doc:"Whether the container stands still while the steps run. Always true for limit."`
	Cooldown    time.Duration `toml:"cooldown" default:"10m" doc:"Per container, counted from the end of its last case: within it a limit case skips its steps and goes straight to the verdict, and other triggers open no case. 0s: none."`
}

// Same reports whether two triggers fire together: the same kind and threshold.
func (t Trigger) Same(o Trigger) bool {
	return t.On == o.On && t.At == o.At && t.Some == o.Some && t.Full == o.Full &&
		t.Over == o.Over && t.LimitWithin == o.LimitWithin
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
	Action    string        `toml:"action" required:"true" doc:"What to do: one of the actions below. Its own keys stand beside these."`
	Name      string        `toml:"name" also:"the action's name" doc:"Unique in its rule; needed where an action is used twice."`
	Timeout   time.Duration `toml:"timeout" also:"by action" doc:"After this the step has failed, and the case goes on."`
	Raise     Size          `toml:"raise" also:"nothing" doc:"Room borrowed above the limit for this step only, in bytes or as a share of the limit."`
	OnFailure OnFailure     `toml:"on-failure" default:"continue" values:"continue|verdict|otherwise" doc:"After a failure: continue with the next step, skip to the verdict, or skip to verdict.otherwise."`
	IfFailed  []string      `toml:"if-failed" doc:"Run only if one of these earlier steps (by name) failed."`
	Options   Options       // the action's own keys: one of the *Options types of this package
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
	Do        VerdictKind   `toml:"do" values:"kill|resume|hold|none" also:"kill where the trigger holds, else none" doc:"kill it, resume it with more room, hold it for an operator, or none: leave it alone (only where the trigger does not hold)."`
	Kill      KillScope     `toml:"kill" default:"container" values:"container|largest" doc:"What a kill ends: the whole container or its largest process."`
	TermGrace time.Duration `toml:"term-grace" also:"0s" doc:"A kill first lends verdict.raise (25% if not given), thaws, sends SIGTERM and waits this long. 0s: SIGKILL at once."`
	Raise     Size          `toml:"raise" doc:"resume, required there: how much more room the container goes on with, in bytes or as a share of the original limit. Not compounding: each resume adds the same."`
	RaiseFor  time.Duration `toml:"raise-for" default:"1h" doc:"resume: after this the limit is lowered again as soon as usage fits under it. 0s: never."`
	Resumes   int           `toml:"resumes" default:"3" doc:"resume: how often one container is resumed; then verdict.otherwise."`
	HoldFor   time.Duration `toml:"hold-for" default:"15m" doc:"hold: how long to wait for an operator after the steps; then verdict.otherwise."`
	Deadline  time.Duration `toml:"deadline" default:"5m" doc:"For all steps together; then verdict.otherwise."`
	Otherwise VerdictKind   `toml:"otherwise" values:"kill|resume|none" also:"kill, or none where do is none" doc:"After a failure with on-failure = otherwise, at the deadline, after the last resume and at the end of hold-for."`
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
	Bytes uint64 // raise: what this step borrows beyond what the case has borrowed already
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
	Granted  uint64        // resume: the bytes that this one adds, beyond what earlier ones granted
	Notes    []string      // what else the facts changed ("within the cooldown: steps skipped")
}
