package policy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/arbiterd/arbiter/cri"
)

func checkout() cri.Container {
	return cri.Container{
		Name: "app", Image: "registry.example.org/shop/checkout:1.2", Cgroup: "/kubepods/burstable/pod1/c1",
		Pod: cri.Pod{
			Namespace: "shop-eu", Name: "checkout-7f", QoS: "Burstable",
			Labels: map[string]string{"team": "payments"}, Annotations: map[string]string{"arbiter/policy": "heap"},
		},
	}
}

// TestMatchKeys tries each key alone, on a container that it is for and with
// not on one that it is not for.
func TestMatchKeys(t *testing.T) {
	t.Parallel()
	tests := []struct {
		match string
		miss  string // "" if it matches
	}{
		{`all = true`, ""},
		{`namespace = ["x", "shop-*"]`, ""},
		{`namespace = ["x"]`, `match.namespace = ["x"], the container has "shop-eu"`},
		{`pod = ["checkout-*"]`, ""},
		{`pod = ["*-8f"]`, `match.pod = ["*-8f"], the container has "checkout-7f"`},
		{`container = ["app"]`, ""},
		{`container = ["istio-*"]`, `match.container = ["istio-*"], the container has "app"`},
		{`image = ["*/checkout:*"]`, ""},
		{`image = ["checkout:*"]`, `match.image = ["checkout:*"], the container has "registry.example.org/shop/checkout:1.2"`},
		{`labels = { team = "pay*" }`, ""},
		{`labels = { team = "pay*", tier = "*" }`, `match.labels.tier = "*", the container has none`},
		{`annotations = { "arbiter/policy" = "heap" }`, ""},
		{`annotations = { "arbiter/policy" = "core" }`, `match.annotations.arbiter/policy = "core", the container has "heap"`},
		{`qos = ["burstable"]`, ""},
		{`qos = ["guaranteed"]`, `match.qos = ["guaranteed"], the container has "burstable"`},
		{`cgroup = ["/kubepods/**"]`, ""},
		{`cgroup = ["/kubepods/*"]`, `match.cgroup = ["/kubepods/*"], the container has "/kubepods/burstable/pod1/c1"`},
		{`runtime = ["go", "jvm"]`, ""},
		{`runtime = ["node"]`, `match.runtime = ["node"], the container has "jvm"`},
		{`limit-at-least = "256MiB"`, ""},
		{`limit-at-least = "257MiB"`, `match.limit-at-least = 257MiB, the container has "256MiB"`},
		{`limit-at-most = "256MiB"`, ""},
		{`limit-at-most = "255MiB"`, `match.limit-at-most = 255MiB, the container has "256MiB"`},
		{`namespace = ["shop-*"]` + "\n" + `pod = ["x"]`, `match.pod = ["x"], the container has "checkout-7f"`},
		{`all = true` + "\n" + `not = { namespace = ["shop-us"], container = ["x", "istio-*"] }`, ""},
		{`all = true` + "\n" + `not = { namespace = ["shop-us"], container = ["a*"] }`, `match.not.container = ["a*"], the container has "app"`},
		{`all = true` + "\n" + `not = { labels = { tier = "x", team = "payments" } }`, `match.not.labels.team = "payments", the container has "payments"`},
		{`all = true` + "\n" + `not = { runtime = ["jvm"] }`, `match.not.runtime = ["jvm"], the container has "jvm"`},
		{`all = true` + "\n" + `not = { limit-at-least = "1GiB" }`, ""},
		{`all = true` + "\n" + `not = { limit-at-most = "1GiB" }`, `match.not.limit-at-most = 1GiB, the container has "256MiB"`},
	}
	for _, tt := range tests {
		p := decode(t, "[[rule]]\nname = \"r\"\n[rule.match]\n"+tt.match+"\n")
		rule, misses := p.Match(checkout(), LimitOf(256<<20), "jvm", OnLimit)
		var got strings.Builder
		for _, m := range misses {
			got.WriteString(m.String())
		}
		if got.String() != tt.miss || (rule != nil) != (tt.miss == "") {
			t.Errorf("%s: rule %v, miss %q; want %q", tt.match, rule, got.String(), tt.miss)
		}
	}
}

// TestMatchWithoutPod: what a container does not have no glob matches.
func TestMatchWithoutPod(t *testing.T) {
	t.Parallel()
	service := cri.Container{Cgroup: "/system.slice/db.service"}
	for match, want := range map[string]bool{
		`namespace = ["*"]`:                                  false,
		`labels = { team = "*" }`:                            false,
		`qos = ["besteffort"]`:                               false,
		`cgroup = ["/system.slice/*.service"]`:               true,
		`all = true` + "\n" + `not = { namespace = ["*"] }`:  true,
		`all = true` + "\n" + `not = { labels = { a="*" } }`: true,
	} {
		p := decode(t, "[[rule]]\nname = \"r\"\n[rule.match]\n"+match+"\n")
		if got := len(p.For(service, LimitOf(1))) == 1; got != want {
			t.Errorf("%s: %t", match, got)
		}
	}
}

// rules writes rules of one line each: name, mode, match, trigger.
func rules(lines ...string) string {
	var b strings.Builder
	for _, l := range lines {
		f := strings.Split(l, "|")
		fmt.Fprintf(&b, "[[rule]]\nname = %q\nmode = %q\nmatch = { %s }\ntrigger = { %s }\n", f[0], f[1], f[2], f[3])
	}
	return b.String()
}

func names(rules []*Rule) string {
	var out []string
	for _, r := range rules {
		out = append(out, r.Name)
	}
	return strings.Join(out, " ")
}

func TestFor(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		rules []string
		limit Limit
		want  string // of For
		by    string // of ByTrigger, separated by "; "
		picks map[string]string
	}{
		{"first wins", []string{"a|enforce|namespace=['x']|", "b|enforce|all=true|", "c|enforce|all=true|"}, LimitOf(1), "b", "b", nil},
		{"one for each trigger", []string{
			"a|enforce|all=true|on='usage',at='90%'", "b|enforce|all=true|", "c|enforce|all=true|on='usage',at='80%'",
			"d|enforce|all=true|on='usage',at='90%',hold=true,cooldown='1s'", "e|enforce|all=true|on='growth',limit-within='1s'",
		}, LimitOf(1), "a b c e", "a; b; c; e", nil},
		{"runtime undecided", []string{"j|enforce|runtime=['jvm']|", "g|enforce|runtime=['go']|", "x|enforce|all=true|", "y|enforce|all=true|"},
			LimitOf(1), "j g x", "j g x", map[string]string{"jvm": "j", "go": "g", "node": "x", "": "x"}},
		{"not runtime undecided", []string{"j|enforce|all=true,not={runtime=['jvm']}|", "x|enforce|all=true|"},
			LimitOf(1), "j x", "j x", map[string]string{"jvm": "x", "go": "j"}},
		{"nothing after the runtime", []string{"j|enforce|runtime=['jvm']|"}, LimitOf(1), "j", "j", map[string]string{"jvm": "j", "go": "", "": ""}},
		{"off is final", []string{"o|off|container=['app']|", "x|enforce|all=true|", "u|enforce|all=true|on='usage',at='90%'"}, LimitOf(1), "o", "", nil},
		{"off comes too late for what is won", []string{"x|enforce|all=true|", "o|off|all=true|", "u|enforce|all=true|on='usage',at='90%'"}, LimitOf(1), "x o", "x o", nil},
		{"observe is final", []string{"w|observe|all=true|", "u|enforce|all=true|on='usage',at='90%'"}, LimitOf(1), "w", "w", nil},
		{"observe of a trigger that is won is nothing", []string{"x|enforce|all=true|", "w|observe|all=true|", "u|enforce|all=true|on='usage',at='90%'"}, LimitOf(1), "x u", "x; u", nil},
		{"off with a runtime", []string{"o|off|runtime=['jvm']|", "x|enforce|all=true|", "u|enforce|all=true|on='usage',at='90%'"},
			LimitOf(1), "o x u", "o x; o u", map[string]string{"jvm": "o", "go": "x"}},
		{"no limit", []string{"x|enforce|all=true|", "u|enforce|all=true|on='usage',at='90%'", "g|enforce|all=true|on='growth',limit-within='1s'", "p|enforce|all=true|on='pressure',full='10%'"},
			NoLimit, "p", "p", nil},
		{"no limit is above any", []string{"a|enforce|limit-at-least='1GiB'|on='pressure',full='10%'", "b|enforce|limit-at-most='1GiB'|on='pressure',some='10%'"}, NoLimit, "a", "a", nil},
		{"namespaces in order", []string{"a|enforce|namespace=['shop-eu']|", "b|enforce|namespace=['shop-*']|on='usage',at='90%'", "c|enforce|namespace=['x','shop-eu','shop-eu']|on='usage',at='80%'"},
			LimitOf(1), "a b c", "a; b; c", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := decode(t, rules(tt.rules...))
			got := p.For(checkout(), tt.limit)
			if names(got) != tt.want {
				t.Errorf("For: %s, want %s", names(got), tt.want)
			}
			var lists []string
			for _, l := range ByTrigger(got) {
				lists = append(lists, names(l))
			}
			if by := strings.Join(lists, "; "); by != tt.by {
				t.Errorf("ByTrigger: %s, want %s", by, tt.by)
			}
			for runtime, want := range tt.picks {
				name := ""
				if r := Pick(ByTrigger(got)[0], runtime); r != nil {
					name = r.Name
				}
				if name != want {
					t.Errorf("Pick %q: %q, want %q", runtime, name, want)
				}
			}
			literal := &Policy{Rules: p.Rules} // one that Decode did not make
			if again := literal.For(checkout(), tt.limit); names(again) != tt.want {
				t.Errorf("For of a policy without an index: %s", names(again))
			}
			agree(t, p, tt.limit)
		})
	}
}

// agree compares For, ByTrigger and Pick with Match, which is written apart.
func agree(t *testing.T, p *Policy, limit Limit) {
	t.Helper()
	c := checkout()
	for _, runtime := range []string{"jvm", "go", ""} {
		for _, list := range ByTrigger(p.For(c, limit)) {
			picked := Pick(list, runtime)
			kind := list[0].Trigger.On
			rule, _ := p.Match(c, limit, runtime, kind)
			if picked != nil && rule == nil {
				t.Errorf("runtime %q, %s: Pick says %s, Match none", runtime, kind, picked.Name)
			}
			if picked != nil && rule != nil && rule.Trigger.Same(picked.Trigger) && rule != picked {
				t.Errorf("runtime %q, %s: Pick says %s, Match %s", runtime, kind, picked.Name, rule.Name)
			}
		}
	}
}

func TestMatchMisses(t *testing.T) {
	t.Parallel()
	p := decode(t, rules("a|enforce|namespace=['x']|", "u|enforce|all=true|on='usage',at='90%'", "j|enforce|runtime=['go']|", "b|enforce|all=true|"))
	rule, misses := p.Match(checkout(), LimitOf(1), "", OnLimit)
	if rule == nil || rule.Name != "b" {
		t.Fatalf("rule %v", rule)
	}
	got := map[string]string{}
	for _, m := range misses {
		got[m.Rule.Name] = m.String()
	}
	want := map[string]string{
		"a": `match.namespace = ["x"], the container has "shop-eu"`,
		"u": `trigger.on = "usage", the container has "limit"`,
		"j": `match.runtime = ["go"], the container has none`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestShadowAgainstMatch: a rule that lint calls unreachable never wins.
func TestShadowAgainstMatch(t *testing.T) {
	t.Parallel()
	p, diags := Decode([]File{readFile(t, "testdata/lint/shadow.toml")})
	dead := map[string]bool{}
	for _, d := range diags {
		dead[d.Rule] = true
	}
	if len(dead) < 6 {
		t.Fatalf("only %d unreachable rules", len(dead))
	}
	for _, ns := range []string{"", "shop-eu", "pay", "other", "run", "self"} {
		for _, cg := range []string{"/kubepods/burstable/a", "/kubepods/a", "/x"} {
			for _, name := range []string{"istio-proxy", "app", "x"} {
				for _, limit := range []Limit{NoLimit, LimitOf(1), LimitOf(300 << 20), LimitOf(900 << 20), LimitOf(9 << 30)} {
					c := cri.Container{Name: name, Cgroup: cg, Pod: cri.Pod{Namespace: ns, Name: "x", Labels: map[string]string{"a": "b", "x": "y"}, Annotations: map[string]string{"x": "y"}}}
					for _, list := range ByTrigger(p.For(c, limit)) {
						for _, runtime := range []string{"jvm", "go", "native"} {
							if r := Pick(list, runtime); r != nil && dead[r.Name] {
								t.Errorf("%s wins %+v", r.Name, c)
							}
						}
					}
				}
			}
		}
	}
}
