package policy

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
)

// maxShare bounds what a step may borrow or a verdict grant: ten times the limit.
const maxShare = 1000

func (d *decoder) checkStep(r *Rule, i int, n *node, names map[string]int) {
	s := &r.Steps[i]
	if j, ok := names[s.Name]; ok {
		d.errorf(n.child("name").key, "step.name", fmt.Sprintf("give one of them a name = %q", s.Name+"-2"),
			"%q is also the name of step %d", s.Name, j+1)
	}
	names[s.Name] = i
	if s.Timeout <= 0 {
		d.errorf(n.child("timeout").val, "step.timeout", "", "must be more than 0s")
	}
	d.checkRoom(n, "raise", "step.raise", s.Raise)
	for k, name := range s.IfFailed {
		d.checkIfFailed(r, i, name, n.child("if-failed").elem(k))
	}
	d.checkOptions(s, n)
	if r.Trigger.Hold && s.Options.Needs() == Running && s.Raise.IsZero() && !raisedBefore(r.Steps[:i]) {
		d.report(SeverityWarning, n.key, "step.raise", `add raise = "25%"`,
			"%s needs the process running, and at its limit it stops again at the next page that it touches", s.Name)
	}
	if s.Name == SnapshotAction && s.Action == SnapshotAction && i > 0 {
		d.report(SeverityWarning, n.key, "step.action", "", "a snapshot is taken first wherever it stands")
	}
}

func raisedBefore(steps []Step) bool {
	return slices.ContainsFunc(steps, func(s Step) bool { return s.Action == "raise" })
}

// checkRoom checks a key that says how much room is given.
func (d *decoder) checkRoom(n *node, key, path string, s Size) {
	switch {
	case n.has(key) && s.IsZero():
		d.errorf(n.child(key).val, path, "", "must be more than nothing")
	case s.Percent > maxShare:
		d.errorf(n.child(key).val, path, "", "%s is more than ten times the limit", s)
	}
}

func (d *decoder) checkIfFailed(r *Rule, i int, name string, n *node) {
	at := slices.IndexFunc(r.Steps, func(s Step) bool { return s.Name == name })
	switch {
	case at < 0 && name == SnapshotAction:
	case at < 0:
		d.errorf(n.val, "step.if-failed", didYouMean(name, stepNames(r.Steps[:i])), "no step is named %q", name)
	case at == i:
		d.errorf(n.val, "step.if-failed", "", "a step cannot wait for its own failure")
	case at > i:
		d.errorf(n.val, "step.if-failed", "name an earlier step", "%q comes later", name)
	}
}

func stepNames(steps []Step) []string {
	names := make([]string, len(steps))
	for i, s := range steps {
		names[i] = s.Name
	}
	return names
}

// checkOptions checks what the type of an action's key does not.
func (d *decoder) checkOptions(s *Step, n *node) {
	bad := func(key, hint, format string, args ...any) {
		d.errorf(n.child(key).val, s.Action+"."+key, hint, format, args...)
	}
	switch o := s.Options.(type) {
	case ExecOptions:
		checkExec(o, n, bad)
	case RaiseOptions:
		d.checkRoom(n, "by", "raise.by", o.By)
	case SignalOptions:
		if name := strings.TrimPrefix(o.Signal, "SIG"); !slices.Contains(signalNames, name) {
			bad("signal", didYouMean(name, signalNames), "%q is no signal", o.Signal)
		}
		checkSelector(o.Process, bad)
	case WaitOptions:
		checkWait(o, s.Timeout, bad)
	case LogOptions:
		if o.Message == "" {
			bad("message", "", "is empty")
		}
	case CoreDumpOptions:
		checkSelector(o.Process, bad)
		if o.Filter > 0x1ff {
			bad("filter", "", "0x%x has bits that core(5) does not know", o.Filter)
		}
	case ProfileOptions:
		checkProfile(o, bad)
	case WebhookOptions:
		checkWebhook(o, bad)
	case UploadOptions:
		if o.To == "" {
			bad("to", "", "is empty")
		}
	}
}

// A complaint reports a bad value of one of an action's keys.
type complaint func(key, hint, format string, args ...any)

func checkExec(o ExecOptions, n *node, bad complaint) {
	switch {
	case len(o.Argv) == 0:
		bad("argv", `write argv = ["/path/to/program", "argument"]`, "is empty")
	case !path.IsAbs(o.Argv[0]) && strings.Contains(o.Argv[0], " "):
		bad("argv", "one string for each argument; no shell reads them", "%q is no absolute path", o.Argv[0])
	case !path.IsAbs(o.Argv[0]):
		bad("argv", "", "%q is no absolute path", o.Argv[0])
	}
	for _, a := range o.Argv {
		if strings.ContainsRune(a, 0) {
			bad("argv", "", "has a NUL byte")
		}
	}
	if o.In == "container" && n.has("user") {
		bad("user", "", `means nothing for in = "container"`)
	}
	for _, k := range sortedKeys(o.Env) {
		switch {
		case k == "" || strings.ContainsAny(k, "=\x00") || strings.ContainsRune(o.Env[k], 0):
			bad("env", "", "%q is no variable", k)
		case strings.HasPrefix(k, "ARBITER_"):
			bad("env", "", "%s: variables that begin with ARBITER_ are the case's own", k)
		}
	}
}

func checkWait(o WaitOptions, timeout time.Duration, bad complaint) {
	switch {
	case o.For <= 0:
		bad("for", "", "must be more than 0s")
	case timeout < o.For:
		bad("for", "leave the timeout out", "%s is longer than the step's timeout %s",
			FormatDuration(o.For), FormatDuration(timeout))
	}
}

func checkProfile(o ProfileOptions, bad complaint) {
	if o.Port < 1 || o.Port > 65535 {
		bad("port", "", "%d is no port", o.Port)
	}
	if !strings.HasPrefix(o.Path, "/") {
		bad("path", "", "%q does not begin with a slash", o.Path)
	}
	for _, p := range o.Profiles {
		if p == "" || strings.ContainsAny(p, "/?#&") {
			bad("profiles", "", "%q is no profile", p)
		}
	}
}

func checkWebhook(o WebhookOptions, bad complaint) {
	rest, ok := strings.CutPrefix(o.URL, "https://")
	if !ok {
		rest, ok = strings.CutPrefix(o.URL, "http://")
	}
	host, _, _ := strings.Cut(rest, "/")
	switch {
	case !ok:
		bad("url", "", "must begin with http:// or https://")
	case host == "" || strings.ContainsAny(o.URL, " \t\r\n\x00"):
		bad("url", "", "names no host")
	case strings.Contains(host, "@"):
		bad("url", "use secret-file, or a header", "must not hold a user or a password")
	}
	if o.Retries < 0 || o.Retries > 10 {
		bad("retries", "", "must be from 0 to 10")
	}
	if o.SecretFile != "" && !path.IsAbs(o.SecretFile) {
		bad("secret-file", "", "%q is no absolute path", o.SecretFile)
	}
	for _, k := range sortedKeys(o.Headers) {
		if k == "" || strings.ContainsAny(k, " :\r\n\x00") || strings.ContainsAny(o.Headers[k], "\r\n\x00") {
			bad("headers", "", "%q is no header", k)
		}
	}
}

// checkSelector checks a choice of processes.
func checkSelector(s string, bad complaint) {
	choices := []string{"largest", "all", "pid1"}
	if glob, ok := strings.CutPrefix(s, "name="); ok && glob != "" || slices.Contains(choices, s) {
		return
	}
	bad("process", didYouMean(s, choices), `%q is not "largest", "all", "pid1" or "name=GLOB"`, s)
}

// signalNames are signal(7)'s, without SIG.
var signalNames = []string{
	"HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
	"PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
	"XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
}
