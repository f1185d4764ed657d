package integration

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/arbiter/api"
	"github.com/arbiterd/arbiter/arbiter/casebook"
	"github.com/arbiterd/arbiter/tests/testkit"
)

// A broken policy on reload leaves the last good one in force, and says why.
func TestKernelBadReloadKeepsPolicy(t *testing.T) {
	g := group(t, 64*mib)
	good := rule(g, wait, `do = "kill"`)
	r := start(t, settings{groups: []*testkit.Group{g}, policy: good})
	for _, tc := range []struct{ name, text, want string }{
		{"unknown key", strings.Replace(good, "cooldown", "cooldwn", 1), `did you mean "cooldown"?`},
		{"key of another action", strings.Replace(good, `for = "1m"`, `argv = ["/bin/true"]`, 1), "argv"},
		{"missing unit", strings.Replace(good, `"90s"`, `90`, 1), "unit"},
		{"impossible value", strings.Replace(good, `do = "kill"`, `do = "explode"`, 1), "explode"},
		{"duplicate name", good + good, "test"},
		{"empty match", "[[rule]]\nname = \"x\"\n[rule.match]\n[rule.trigger]\non = \"limit\"\n[rule.verdict]\ndo = \"kill\"\n", "match"},
		{"no TOML", "[[rule", "10-test.toml:1"},
	} {
		r.write("policy.d/10-test.toml", tc.text)
		_, stderr, code := r.ctl("reload")
		if code != 1 || !strings.Contains(stderr, tc.want) || !strings.Contains(stderr, "10-test.toml:") {
			t.Errorf("%s: exit %d: %s", tc.name, code, stderr)
		}
	}
	st := decode[api.Status](t, r.must("status", "-o", "json"))
	if st.Policy.Rules != 1 || st.Policy.Error == "" || st.Policy.ErrorSince.IsZero() {
		t.Errorf("status says %+v", st.Policy)
	}
	r.write("policy.d/10-test.toml", good)
	if err := os.Chmod(filepath.Join(r.dir, "policy.d/10-test.toml"), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := r.ctl("reload"); code != 1 || !strings.Contains(stderr, "everybody may write it") {
		t.Errorf("world-writable file: exit %d: %s", code, stderr)
	}
	l := r.leak(g, "--rate", "200MiB/s")
	r.awaitHold(g.Path, "wait")
	standsStill(t, g, l)
}

// An empty policy directory and a glob that matches nothing guard nothing and
// are no errors.
func TestKernelNothingToGuard(t *testing.T) {
	g := group(t, 64*mib)
	r := newRig(t, settings{groups: []*testkit.Group{g}, policy: strings.ReplaceAll(rule(g, wait, `do = "kill"`), g.Path, "/no-such-cgroup/*")})
	r.run("supervise")
	if _, ok := r.guard(g.Path); ok {
		t.Error("guarded by a rule that does not match")
	}
	if err := os.Remove(filepath.Join(r.dir, "policy.d/10-test.toml")); err != nil {
		t.Fatal(err)
	}
	r.must("reload")
	if st := decode[api.Status](t, r.must("status", "-o", "json")); st.Policy.Rules != 0 {
		t.Errorf("%d rules in an empty directory", st.Policy.Rules)
	}
}

// A container that vanishes in the middle of a step closes its case as gone.
func TestKernelVanishes(t *testing.T) {
	for name, step := range map[string]string{
		"wait": wait,
		"exec": "[[rule.step]]\naction = \"exec\"\nname = \"wait\"\nargv = [\"/bin/sleep\", \"60\"]\ntimeout = \"90s\"\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := group(t, 64*mib)
			r := start(t, settings{groups: []*testkit.Group{g}, policy: rule(g, step, `do = "kill"`)})
			l := r.leak(g, "--rate", "200MiB/s")
			h := r.awaitHold(g.Path, "wait")
			// As a runtime stops a frozen container: kill, then thaw.
			kill9(t, l.pid())
			if g.Version() == 1 {
				if err := os.WriteFile(g.FreezerDir()+"/freezer.state", []byte("THAWED"), 0); err != nil {
					t.Fatal(err)
				}
			}
			l.awaitEnd()
			rec := r.awaitClosed(g.Path, 1)
			if rec.ID != h.ID || rec.Outcome != casebook.OutcomeGone {
				t.Errorf("case %s closed as %s: %s", rec.ID, rec.Outcome, rec.Why)
			}
		})
	}
}

// Somebody who thaws a held container has taken it over: nothing claims that it
// is held, and it is guarded again soon.
func TestKernelThawedByOthers(t *testing.T) {
	t.Parallel()
	g := group(t, 64*mib)
	r := start(t, settings{groups: []*testkit.Group{g}, policy: rule(g, wait, `do = "kill"`)})
	l := r.leak(g, "--ceiling", "200MiB", "--rate", "200MiB/s")
	h := r.awaitHold(g.Path, "wait")
	g.SetLimit(256 * mib) // room to run in
	file, thaw := g.Dir()+"/cgroup.freeze", "0"
	if g.Version() == 1 {
		file, thaw = g.FreezerDir()+"/freezer.state", "THAWED"
	}
	if err := os.WriteFile(file, []byte(thaw), 0); err != nil {
		t.Fatal(err)
	}
	rec := r.awaitClosed(g.Path, 1)
	if rec.ID != h.ID || rec.Outcome != casebook.OutcomeKernel || !strings.Contains(rec.Why, "somebody else thawed it") {
		t.Errorf("case %s closed as %s: %s", rec.ID, rec.Outcome, rec.Why)
	}
	if l.ended() {
		t.Error("the container did not live on")
	}
}

// A step that never ends is ended, its children with it, and the verdict comes.
func TestKernelStepNeverEnds(t *testing.T) {
	g := group(t, 64*mib)
	dir := t.TempDir()
	script := filepath.Join(dir, "stuck")
	text := "#!/bin/sh\ntrap '' TERM\nsleep 1000 &\necho $! >" + dir + "/child\nwhile :; do sleep 1000; done\n"
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	r := start(t, settings{groups: []*testkit.Group{g}, policy: rule(g, `[[rule.step]]
action = "exec"
argv = ["`+script+`"]
timeout = "1s"
`, `do = "kill"`)})
	l := r.leak(g, "--rate", "200MiB/s")
	rec := r.awaitClosed(g.Path, 1)
	if rec.Outcome != casebook.OutcomeKill {
		t.Errorf("closed as %s: %s", rec.Outcome, rec.Why)
	}
	if got := rec.Steps[len(rec.Steps)-1]; got.Result != "timeout" {
		t.Errorf("the step ended as %s: %s", got.Result, got.Error)
	}
	l.awaitEnd()
	b, err := os.ReadFile(dir + "/child")
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the step's child is gone", func() bool { return gone(pid) || zombie(pid) })
}

func zombie(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err != nil || strings.Contains(string(b), ") Z ")
}

// A full state disk costs the record and the artifacts, and not the verdict.
func TestKernelFullDisk(t *testing.T) {
	g := group(t, 64*mib)
	state := t.TempDir()
	if err := unix.Mount("tmpfs", state, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		testkit.Eventually(t, "the disk is unmounted", func() bool { return unix.Unmount(state, unix.MNT_DETACH) == nil })
	})
	for i := 0; ; i++ {
		if os.WriteFile(filepath.Join(state, "fill"+strconv.Itoa(i)), make([]byte, 4096), 0o600) != nil {
			break
		}
	}
	r := start(t, settings{groups: []*testkit.Group{g}, state: state, policy: rule(g, wait, `do = "kill"`)})
	l := r.leak(g, "--rate", "200MiB/s")
	h := r.awaitHold(g.Path, "wait")
	standsStill(t, g, l)
	r.must("kill", h.ID)
	l.awaitEnd()
	testkit.Eventually(t, "the case is over", func() bool { return len(r.holds()) == 0 })
	if text := r.log.text(); !strings.Contains(text, "case record not written") || !strings.Contains(text, h.ID) {
		t.Error("the log does not say that the record is lost")
	}
}

// A child cgroup made while its parent is armed is not left with the parent's
// flag, whether it stays or goes at once.
func TestKernelChildren(t *testing.T) {
	g := group(t, 64*mib)
	r := start(t, settings{groups: []*testkit.Group{g}, policy: rule(g, wait, `do = "kill"`)})
	for range 20 {
		dir := g.Dir() + "/passing"
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Rmdir(dir); err != nil {
			t.Fatal(err)
		}
	}
	child := g.Child("staying", testkit.Options{})
	l := r.leak(child, "--rate", "200MiB/s")
	r.awaitHold(g.Path, "wait")
	standsStill(t, child, l)
	r.strike("both")
	l.awaitEnd()
	asBefore(t, child, child.Limit())
	asBefore(t, g, 64*mib)
}

// What is over budget is left to the kernel, and the record says so.
func TestKernelBudgets(t *testing.T) {
	t.Run("held", func(t *testing.T) {
		a, b := group(t, 64*mib), group(t, 64*mib)
		r := start(t, settings{groups: []*testkit.Group{a, b}, config: "[budget]\nheld = 1\n",
			policy: strings.Replace(rule(a, wait, `do = "kill"`), `"`+a.Path+`"`, `"`+a.Path+`", "`+b.Path+`"`, 1)})
		la := r.leak(a, "--rate", "200MiB/s")
		r.awaitHold(a.Path, "wait")
		lb := r.leak(b, "--rate", "200MiB/s")
		lb.awaitEnd()
		rec := r.awaitClosed(b.Path, 1)
		if rec.Outcome != casebook.OutcomeKernel || !strings.Contains(rec.Why, "held = 1") {
			t.Errorf("closed as %s: %s", rec.Outcome, rec.Why)
		}
		standsStill(t, a, la)
		if m := r.metrics(); !strings.Contains(m, `arbiter_budget_refusals_total{budget="held"} 1`) {
			t.Error("the refusal is not counted")
		}
	})
	t.Run("borrowed", func(t *testing.T) {
		g := group(t, 64*mib)
		r := start(t, settings{groups: []*testkit.Group{g}, config: "[budget]\nborrowed = \"1MiB\"\n",
			policy: rule(g, "", "do = \"resume\"\nraise = \"50%\"\notherwise = \"kill\"")})
		l := r.leak(g, "--rate", "200MiB/s")
		rec := r.awaitClosed(g.Path, 1)
		if rec.Outcome != casebook.OutcomeKill || !strings.Contains(rec.Why, "borrowed") {
			t.Errorf("closed as %s: %s", rec.Outcome, rec.Why)
		}
		l.awaitEnd()
	})
}

// Observing changes nothing: the kernel kills, and the record tells what would
// have been done.
func TestKernelObserve(t *testing.T) {
	g := group(t, 64*mib)
	r := newRig(t, settings{groups: []*testkit.Group{g},
		policy: strings.Replace(rule(g, wait, `do = "resume"`+"\nraise = \"50%\""), `name = "test"`, "name = \"test\"\nmode = \"observe\"", 1)})
	r.run("supervise")
	r.awaitGuard(g.Path, "watched")
	if g.Record() != "" {
		t.Errorf("observing has written %s", g.Record())
	}
	l := r.leak(g, "--rate", "200MiB/s")
	l.awaitEnd()
	rec := r.awaitClosed(g.Path, 1)
	if rec.Outcome != casebook.OutcomeNone || len(rec.Plan) < 3 {
		t.Errorf("closed as %s: %s; plan %q", rec.Outcome, rec.Why, rec.Plan)
	}
}

// On v1 the armed budget bounds how many containers the kernel may not kill.
func TestKernelArmedBudget(t *testing.T) {
	testkit.Need(t, testkit.V1Memory)
	a, b := group(t, 64*mib), group(t, 64*mib)
	r := newRig(t, settings{groups: []*testkit.Group{a, b}, config: "[budget]\narmed = 1\n",
		policy: strings.Replace(rule(a, wait, `do = "kill"`), `"`+a.Path+`"`, `"`+a.Path+`", "`+b.Path+`"`, 1)})
	r.run("supervise")
	testkit.Eventually(t, "one is armed, the other not", func() bool {
		ga, _ := r.guard(a.Path)
		gb, _ := r.guard(b.Path)
		why := strings.Join(append(ga.Missing, gb.Missing...), " ")
		return (ga.State == "armed") != (gb.State == "armed") && strings.Contains(why, "armed = 1")
	})
}
