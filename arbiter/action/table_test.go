package action

import (
	"slices"
	"testing"

	"github.com/arbiterd/arbiter/policy"
)

// The language and this package must speak of the same actions in the same order.
func TestTableIsThePolicyLanguages(t *testing.T) {
	t.Parallel()
	var have []string
	for _, e := range table {
		have = append(have, e.name)
	}
	if want := policy.Actions(); !slices.Equal(have, want) {
		t.Errorf("the table has %q\nthe language   %q", have, want)
	}
}

func TestNew(t *testing.T) {
	t.Parallel()
	a, err := New(policy.Step{Action: "log", Options: policy.LogOptions{Message: "m"}})
	if err != nil || a.(Log).Message != "m" || a.Needs() != policy.Any {
		t.Errorf("got %+v, %v", a, err)
	}
	for _, step := range []policy.Step{
		{Action: "log", Options: policy.RaiseOptions{}},
		{Action: "log"},
		{Action: "no-such", Options: policy.LogOptions{}},
	} {
		if a, err := New(step); err == nil {
			t.Errorf("%+v: got %+v, want an error", step, a)
		}
	}
}
