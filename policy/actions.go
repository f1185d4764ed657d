package policy

import (
	"reflect"
	"time"
)

// SnapshotAction is taken first in every case, named in the rule or not.
const (
	SnapshotAction  = "snapshot"
	snapshotTimeout = 5 * time.Second
)

// An actionSpec is one action as policies see it.
type actionSpec struct {
	name    string
	options Options // zero value of its keys' type
	timeout time.Duration
	doc     string
}

// actions is every action of the language, cheapest evidence first.
var actions = []actionSpec{
	{SnapshotAction, SnapshotOptions{}, snapshotTimeout,
		"Process table, memory.stat, smaps_rollup, PSI and cgroup tree. Always taken first, even if not named."},
	{"log", LogOptions{}, 5 * time.Second, "Write a line to the daemon's log."},
	{"thread-dump", ThreadDumpOptions{}, 10 * time.Second, "The stacks of all threads, as the runtime tells them."},
	{"class-histogram", ClassHistogramOptions{}, 10 * time.Second, "JVM: instances and bytes by class."},
	{"node-report", NodeReportOptions{}, 10 * time.Second, "Node.js: the diagnostic report."},
	{"profile", ProfileOptions{}, 15 * time.Second, "Go: pprof over HTTP in the container's network namespace."},
	{"heap-dump", HeapDumpOptions{}, 2 * time.Minute, "The runtime's heap, by the way that suits it; with via = core from a core, standing still."},
	{"core-dump", CoreDumpOptions{}, 2 * time.Minute, "An ELF core of a process that stands still."},
	{"exec", ExecOptions{}, 30 * time.Second,
		"Run a program with the case as JSON on stdin and as ARBITER_* variables."},
	{"signal", SignalOptions{}, 5 * time.Second, "Send a signal."},
	{"raise", RaiseOptions{}, 5 * time.Second, "Lend room above the limit until the case closes."},
	{"reclaim", ReclaimOptions{}, 15 * time.Second, "Give page cache and reclaimable kernel memory back."},
	{"wait", WaitOptions{}, 0, "Wait, for a time or until usage falls. Its timeout is its time and 5s."},
	{"webhook", WebhookOptions{}, 15 * time.Second, "Post the case as JSON over HTTP."},
	{"upload", UploadOptions{}, 2 * time.Minute, "Copy artifacts to S3-compatible storage."},
}

// findAction finds an action by name.
func findAction(name string) (actionSpec, bool) {
	for _, a := range actions {
		if a.name == name {
			return a, true
		}
	}
	return actionSpec{}, false
}

// Actions are the names of all actions.
func Actions() []string {
	names := make([]string, len(actions))
	for i, a := range actions {
		names[i] = a.name
	}
	return names
}

// optionsType is the struct of the action's own keys.
func (a actionSpec) optionsType() reflect.Type { return reflect.TypeOf(a.options) }

// defaultTimeout is a step's timeout where the rule gives none.
func (a actionSpec) defaultTimeout(o Options) time.Duration {
	if w, ok := o.(WaitOptions); ok {
		return w.For + 5*time.Second
	}
	return a.timeout
}
