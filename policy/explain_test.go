package policy

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/arbiterd/arbiter/cri"
)

func TestExplainGolden(t *testing.T) {
	t.Parallel()
	f := readFile(t, "testdata/explain/policy.toml")
	f.Name = "policy.toml"
	p, diags := Decode([]File{f})
	if p == nil {
		t.Fatal(diags)
	}
	service := cri.Container{Cgroup: "/system.slice/db.service"}
	exempt := checkout()
	exempt.Pod.Namespace = "kube-system"
	tests := map[string]struct {
		c     cri.Container
		facts Facts
	}{
		"jvm":             {checkout(), Facts{Limit: LimitOf(256 << 20), LimitCgroup: "/kubepods/burstable/pod1", Runtime: "jvm"}},
		"native":          {checkout(), Facts{Limit: LimitOf(256 << 20), LimitCgroup: "/kubepods/burstable/pod1/c1", Runtime: "native", Resumes: 3}},
		"unknown-runtime": {checkout(), Facts{Limit: LimitOf(256 << 20)}},
		"no-limit":        {checkout(), Facts{Runtime: "go"}},
		"exempt":          {exempt, Facts{Limit: LimitOf(1 << 30), Runtime: "go"}},
		"service":         {service, Facts{Limit: LimitOf(2 << 30), Runtime: "native"}},
		"service-free":    {service, Facts{Runtime: "native"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			golden(t, filepath.Join("testdata/explain", name+".golden"), Explain(p, tt.c, tt.facts))
		})
	}
}

func TestReplay(t *testing.T) {
	t.Parallel()
	f := Facts{Container: checkout(), Trigger: OnLimit, Limit: LimitOf(256 << 20), Runtime: "jvm"}
	const one = "[[rule]]\nname = \"heap\"\nmatch.runtime = [\"jvm\"]\n[[rule.step]]\naction = \"heap-dump\"\nraise = \"25%\"\n[[rule.step]]\naction = \"core-dump\"\n"
	before := Replay(decode(t, one), f)
	tests := map[string]string{
		"same":    one,
		"changed": strings.Replace(one, `"25%"`, `"50%"`, 1) + "[rule.verdict]\ndo = \"resume\"\nraise = \"10%\"\n",
		"shorter": "[[rule]]\nname = \"core\"\nmatch.all = true\n[[rule.step]]\naction = \"core-dump\"\n",
		"none":    "[[rule]]\nname = \"x\"\nmatch.namespace = [\"x\"]\n",
		"exempt":  "[[rule]]\nname = \"x\"\nmode = \"off\"\nmatch.all = true\n",
		"observe": strings.Replace(one, `name = "heap"`, "name = \"heap\"\nmode = \"observe\"", 1),
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			after := Replay(decode(t, text), f)
			golden(t, filepath.Join("testdata/replay", name+".golden"), DiffPlans(before.Lines(), after.Lines()))
			if back := DiffPlans(after.Lines(), after.Lines()); back != "" {
				t.Errorf("a plan differs from itself:\n%s", back)
			}
		})
	}
}

// TestDiffPlans: the lines of each side are those of the diff that are not the
// other's.
func TestDiffPlans(t *testing.T) {
	t.Parallel()
	sides := [][]string{nil, {" 1. a"}, {" 1. a", " 2. b", " 3. a"}, {" 1. b", " 2. a", "10. c"}, {" 1. x", " 2. y"}}
	for _, a := range sides {
		for _, b := range sides {
			var left, right []string
			for line := range strings.Lines(DiffPlans(a, b)) {
				text := strings.TrimSuffix(line[2:], "\n")
				if line[0] != '+' {
					left = append(left, text)
				}
				if line[0] != '-' {
					right = append(right, text)
				}
			}
			if DiffPlans(a, b) == "" {
				continue
			}
			if strings.Join(left, "|") != strings.Join(unnumbered(a), "|") || strings.Join(right, "|") != strings.Join(unnumbered(b), "|") {
				t.Errorf("diff of %v and %v:\n%s", a, b, DiffPlans(a, b))
			}
		}
	}
}
