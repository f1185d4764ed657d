package report

import (
	"bytes"
	"html/template"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/arbiterd/arbiter/arbiter/casebook"
	"github.com/arbiterd/arbiter/cri"
	"github.com/arbiterd/arbiter/policy"
)

const evil = `"><script>alert(1)</script><img src=x onerror=alert(1)>`

// hostile is a case in which every string is an attack.
func hostile() *casebook.Full {
	at := time.Date(2026, 11, 21, 6, 15, 2, 0, time.UTC)
	return &casebook.Full{
		Record: &casebook.Record{
			ID: "20261121T061502-7f3a", State: evil, Rule: evil, Mode: evil, Verdict: evil, Operator: evil, Outcome: evil, Why: evil,
			RulePos: policy.Position{File: evil}, Opened: at, HeldAt: at, Closed: at, TriggerToHold: 1210 * time.Microsecond, Escapes: 2,
			Facts: policy.Facts{
				Why: evil, Trigger: evil, Runtime: evil, Limit: policy.LimitOf(256 << 20), LimitCgroup: evil, UsageBytes: 200 << 20,
				Container: cri.Container{ID: evil, Name: evil, Image: evil, Cgroup: evil, RestartCount: 3,
					Pod: cri.Pod{Name: evil, Namespace: evil, QoS: evil, UID: evil, Labels: map[string]string{evil: evil}}},
			},
			Plan:      []string{evil},
			Steps:     []casebook.StepRecord{{Name: evil, Result: evil, Error: evil, Why: evil, Summary: evil, Started: at}},
			Artifacts: []casebook.Artifact{{Name: evil, Step: evil, SHA256: evil, Why: evil}},
		},
		Timeline: []casebook.Entry{{At: at, What: evil, Data: map[string]string{evil: evil}}},
	}
}

func write(t *testing.T, c *casebook.Full, files ...File) string {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, c, files); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestHostileStringsAreEscaped(t *testing.T) {
	t.Parallel()
	out := write(t, hostile(), File{evil + ".txt", []byte("</pre>" + evil + "\xff\x1b[2J")}, File{curveFile, []byte(evil)}, File{snapshotFile, []byte(evil)})
	if strings.Contains(out, "<script") || strings.Contains(out, "<img") {
		t.Error("a string of the container became markup")
	}
	if n := strings.Count(out, "</pre>"); n != 2 {
		t.Errorf("%d ends of pre, want 2", n)
	}
	if strings.Contains(out, "ZgotmplZ") {
		t.Error("the page puts a value where html/template cannot escape it")
	}
	if strings.Count(out, "&lt;script&gt;") < 20 {
		t.Error("the strings are not shown")
	}
}

// The page is read on machines that must not be told to load anything.
func TestNothingIsLoaded(t *testing.T) {
	t.Parallel()
	c := hostile()
	c.Timeline, c.Steps, c.Artifacts = nil, nil, nil
	out := strings.ReplaceAll(write(t, c, File{"processes.txt", []byte("x")}), template.HTMLEscapeString(evil), "")
	if m := regexp.MustCompile(`(?i)<(link|script|iframe|object|embed|img|base|form)|\b(src|href)=|url\(|@import`).FindString(out); m != "" {
		t.Errorf("the page has %q", m)
	}
	if !strings.Contains(out, `default-src 'none'`) {
		t.Error("there is no content security policy")
	}
}

func TestWrite(t *testing.T) {
	t.Parallel()
	c := hostile()
	c.Facts.Why, c.State = "256MiB of 256MiB used", "closed"
	snap := `{"answer": "most of it anonymous memory", "limitBytes": 268435456, "processCount": 3,
		"levels": [{"path": "/x", "values": {"memory.kmem.usage_in_bytes": "1048576"}, "stat": {"rss": 134217728, "cache": 67108864, "shmem": 33554432}}],
		"processes": [{"pid": 7, "name": "app", "args": ["app", "</script><script>"], "rssBytes": 1073741824}]}`
	out := write(t, c, File{"processes.txt", []byte("  PID COMMAND\n    1 app\n")}, File{snapshotFile, []byte(snap)},
		File{curveFile, []byte("time,usage_bytes,unreclaimable_bytes\n2026-11-21T06:15:00Z,134217728,10\n2026-11-21T06:15:02Z,268435456,20\n")})
	for _, want := range []string{"256MiB of 256MiB used", "2026-11-21 06:15:02.000 UTC, 1.21ms after the trigger", "the kernel killed 2 processes",
		"<polyline", `points="0.0,85.0 720.0,10.0 "`, "    1 app", "up to 256MiB",
		"most of it anonymous memory", `width="50.0%"`, "<td>kernel, on its behalf</td><td>1MiB</td>", "<td>1GiB</td>", "app &lt;/script&gt;&lt;script&gt;",
		"1 of 3 processes"} {
		if !strings.Contains(out, want) {
			t.Errorf("the report does not say %q", want)
		}
	}
	empty := write(t, &casebook.Full{Record: &casebook.Record{ID: "20261121T061502-7f3a"}})
	for _, heading := range []string{"Steps", "Artifacts", "Timeline", "Plan"} {
		if strings.Contains(empty, "<h2>"+heading) {
			t.Errorf("an empty case has %s", heading)
		}
	}
}

func FuzzCurve(f *testing.F) {
	f.Add("time,usage_bytes,unreclaimable_bytes\n2026-11-21T06:15:00Z,1,2\n2026-11-21T06:15:01Z,2,1\n", uint64(256<<20))
	f.Fuzz(func(t *testing.T, data string, limit uint64) {
		c := parseCurve([]byte(data), limit)
		if c != nil && (strings.Contains(c.Usage, "NaN") || strings.Contains(c.Usage, "Inf") || strings.Contains(c.Unreclaimable, "-")) {
			t.Errorf("%+v", c)
		}
	})
}

func FuzzSnapshot(f *testing.F) {
	f.Add([]byte(`{"limitBytes": 1, "levels": [{"stat": {"rss": 5, "shmem": 7}}], "processes": [{"pid": 1}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := parseSnapshot(data)
		if s == nil {
			return
		}
		for _, x := range s.Shares() {
			if x.Percent < 0 || x.Percent > 100 {
				t.Errorf("%+v", x)
			}
		}
	})
}
