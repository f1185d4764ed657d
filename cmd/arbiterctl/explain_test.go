package main

import (
	"reflect"
	"testing"

	"github.com/arbiterd/arbiter/policy"
)

func TestParseFacts(t *testing.T) {
	t.Parallel()
	tests := map[string]string{
		"described": `{"container": {"name": "app", "cgroup": "/x"}, "limitBytes": 268435456, "runtime": "jvm"}`,
		"a record":  `{"id": "20261121T061502-7f3a", "facts": {"container": {"name": "app", "cgroup": "/x"}, "limitBytes": 268435456, "runtime": "jvm"}}`,
	}
	for name, data := range tests {
		f, err := parseFacts([]byte(data))
		if err != nil || f.Container.Name != "app" || f.Limit != policy.LimitOf(256<<20) || f.Runtime != "jvm" {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
	}
}

func FuzzFacts(f *testing.F) {
	f.Add([]byte(`{"container": {"name": "app", "cgroup": "/x"}, "limitBytes": 1}`))
	f.Add([]byte(`{"facts": {"container": {"cgroup": "/x"}}}`))
	p, diags := policy.Decode([]policy.File{{Name: "p.toml", Data: []byte("[[rule]]\nname = \"r\"\n[rule.match]\nnamespace = [\"a*\"]\n")}})
	if p == nil {
		f.Fatal(diags)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		facts, err := parseFacts(data)
		if err != nil {
			if !reflect.DeepEqual(facts, policy.Facts{}) {
				t.Errorf("value and error: %+v, %v", facts, err)
			}
			return
		}
		if policy.Explain(p, facts.Container, facts) == "" {
			t.Error("nothing to say")
		}
	})
}
