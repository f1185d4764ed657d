package policy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/arbiterd/arbiter/cri"
)

const (
	benchRules      = 10_000
	benchContainers = 1000
)

// manyRules is a policy of n rules. With globs no index helps: every rule has
// to be looked at for every container.
func manyRules(n int, globs bool) []File {
	var files []File
	for f := range 10 {
		var b strings.Builder
		for i := range n / 10 {
			id := f*n/10 + i
			fmt.Fprintf(&b, "[[rule]]\nname = \"rule-%d\"\n[rule.match]\n", id)
			if globs {
				fmt.Fprintf(&b, "cgroup = [\"/kubepods/**/pod%d/*\", \"/x/*/%d-*\"]\nlabels = { team = \"t%d*\" }\n", id, id, id%7)
			} else {
				fmt.Fprintf(&b, "namespace = [\"ns-%d\"]\npod = [\"app-*\"]\nlabels = { team = \"t%d*\" }\n", id, id%7)
			}
			b.WriteString("[rule.trigger]\non = \"limit\"\ncooldown = \"10m\"\n")
			b.WriteString("[[rule.step]]\naction = \"thread-dump\"\nraise = \"25%\"\ntimeout = \"5s\"\n")
			b.WriteString("[[rule.step]]\naction = \"core-dump\"\nif-failed = [\"thread-dump\"]\n")
			b.WriteString("[rule.verdict]\ndo = \"kill\"\ndeadline = \"5m\"\n\n")
		}
		files = append(files, File{Name: fmt.Sprintf("/etc/arbiter/policy.d/%02d.toml", f), Data: []byte(b.String())})
	}
	return files
}

func manyContainers(n int) []cri.Container {
	out := make([]cri.Container, n)
	for i := range out {
		rule := i * benchRules / n
		out[i] = cri.Container{
			Name: "app", Image: "registry.example.org/team/app:1.2.3",
			Cgroup: fmt.Sprintf("/kubepods/burstable/pod%d/c%d", rule, i),
			Pod: cri.Pod{
				Namespace: fmt.Sprintf("ns-%d", rule), Name: fmt.Sprintf("app-%d", rule), QoS: "burstable",
				Labels: map[string]string{"team": fmt.Sprintf("t%d", rule%7), "app": "app"},
			},
		}
	}
	return out
}

// BenchmarkDecodeAndLint is what a reload costs: under 2 s for 10 000 rules.
func BenchmarkDecodeAndLint(b *testing.B) {
	for _, globs := range []bool{false, true} {
		files := manyRules(benchRules, globs)
		b.Run(fmt.Sprintf("rules=%d/globs=%t", benchRules, globs), func(b *testing.B) {
			for b.Loop() {
				p, diags := Decode(files)
				if p == nil {
					b.Fatal(diags[0])
				}
				Lint(p, Env{NodeBytes: 64 << 30, BorrowBudgetBytes: 6 << 30})
			}
		})
	}
}

// BenchmarkRematch matches 1000 containers again, as after a reload: under 1 s.
func BenchmarkRematch(b *testing.B) {
	containers := manyContainers(benchContainers)
	for _, globs := range []bool{false, true} {
		p, _ := Decode(manyRules(benchRules, globs))
		b.Run(fmt.Sprintf("rules=%d/containers=%d/globs=%t", benchRules, benchContainers, globs), func(b *testing.B) {
			for b.Loop() {
				for i := range containers {
					if got := p.For(containers[i], LimitOf(256<<20)); len(got) != 1 {
						b.Fatalf("%s: %d rules", containers[i].Cgroup, len(got))
					}
				}
			}
		})
	}
}

// BenchmarkNewContainer matches one container: under 1 ms.
func BenchmarkNewContainer(b *testing.B) {
	c := manyContainers(benchContainers)[benchContainers-1]
	for _, globs := range []bool{false, true} {
		p, _ := Decode(manyRules(benchRules, globs))
		b.Run(fmt.Sprintf("rules=%d/globs=%t", benchRules, globs), func(b *testing.B) {
			for b.Loop() {
				p.For(c, LimitOf(256<<20))
			}
		})
	}
}
