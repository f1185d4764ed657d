// Command run runs `go test` and judges its skips: a test may skip only for a
// kernel feature that it names, and that this kernel really lacks.
//
//	go run ./tests/run -- ./policy/... ./arbiter/...
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"

	"github.com/arbiterd/arbiter/tests/testkit"
)

func main() {
	args := os.Args[1:]
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	cmd := exec.Command("go", append([]string{"test", "-json", "-timeout", "15m"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "run:", err)
		os.Exit(2)
	}
	s := newSummary(os.Stdout)
	s.read(out)
	failed := cmd.Wait() != nil
	if s.close(func(f string) (bool, bool) { return testkit.Known(testkit.Feature(f)) }) || failed {
		os.Exit(1)
	}
}

// event is one line of `go test -json`, as test2json documents it.
type event struct {
	Action, Package, Test, Output string
}

// summary prints what failed in full and what passed in short.
type summary struct {
	w       io.Writer
	output  map[string][]string // package + test → its output
	skips   map[string]string   // test → the feature that it names
	counted map[string]int
}

func newSummary(w io.Writer) *summary {
	return &summary{w: w, output: map[string][]string{}, skips: map[string]string{}, counted: map[string]int{}}
}

var skipReason = regexp.MustCompile(`needs kernel feature: (.+)`)

func (s *summary) read(r io.Reader) {
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 16<<20)
	for sc.Scan() {
		var e event
		if json.Unmarshal(sc.Bytes(), &e) != nil {
			fmt.Fprintln(s.w, sc.Text())
			continue
		}
		s.event(e)
	}
}

func (s *summary) event(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output", "build-output":
		if e.Test == "" {
			if out := strings.TrimSpace(e.Output); out != "PASS" && !strings.HasPrefix(out, "testing: warning: no tests") {
				fmt.Fprint(s.w, e.Output)
			}
			return
		}
		s.output[key] = append(s.output[key], e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			return
		}
		s.counted[e.Action]++
		if e.Action == "fail" {
			fmt.Fprint(s.w, strings.Join(s.output[key], ""))
		}
		if e.Action == "skip" {
			s.skips[key] = ""
			if m := skipReason.FindStringSubmatch(strings.Join(s.output[key], "")); m != nil {
				s.skips[key] = strings.TrimSpace(m[1])
			}
		}
		delete(s.output, key)
	}
}

// close prints the sums and reports whether a skip was unexpected. has tells
// whether this kernel has a feature.
func (s *summary) close(has func(feature string) (present, known bool)) (failed bool) {
	var names []string
	for name := range s.skips {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		feature := s.skips[name]
		present, known := has(feature)
		switch {
		case feature == "":
			fmt.Fprintf(s.w, "--- UNEXPECTED SKIP: %s: it names no kernel feature\n", name)
		case !known:
			fmt.Fprintf(s.w, "--- UNEXPECTED SKIP: %s: %q is no known kernel feature\n", name, feature)
		case present:
			fmt.Fprintf(s.w, "--- UNEXPECTED SKIP: %s: this kernel has %s\n", name, feature)
		default:
			fmt.Fprintf(s.w, "--- SKIP: %s: this kernel lacks %s\n", name, feature)
			continue
		}
		failed = true
	}
	fmt.Fprintf(s.w, "%d passed, %d failed, %d skipped\n", s.counted["pass"], s.counted["fail"], s.counted["skip"])
	return failed
}
