package action

import (
	"fmt"

	"github.com/arbiterd/arbiter/policy"
)

// table is every action, in the order of the policy language's reference.
var table = []entry{
	{"snapshot", of(newSnapshot)},
	{"log", of(newLog)},
	{"thread-dump", of(newThreadDump)},
	{"class-histogram", of(newClassHistogram)},
	{"node-report", of(newNodeReport)},
	{"profile", of(newProfile)},
	{"heap-dump", of(newHeapDump)},
	{"core-dump", of(newCoreDump)},
	{"exec", of(newExec)},
	{"signal", of(newSignal)},
	{"raise", of(newRaise)},
	{"reclaim", of(newReclaim)},
	{"wait", of(newWait)},
	{"webhook", of(newWebhook)},
	{"upload", of(newUpload)},
}

type entry struct {
	name string
	make func(policy.Options) (Action, error)
}

// of makes an entry's constructor from one that takes the action's own options.
func of[O policy.Options, A Action](make func(O) A) func(policy.Options) (Action, error) {
	return func(options policy.Options) (Action, error) {
		o, ok := options.(O)
		if !ok {
			return nil, fmt.Errorf("options of type %T, want %T", options, o)
		}
		return make(o), nil
	}
}

// New is the action that a step asks for.
func New(step policy.Step) (Action, error) {
	for _, e := range table {
		if e.name != step.Action {
			continue
		}
		a, err := e.make(step.Options)
		if err != nil {
			return nil, fmt.Errorf("make action %s: %w", step.Action, err)
		}
		return a, nil
	}
	return nil, fmt.Errorf("make action %q: there is none of this name", step.Action)
}
