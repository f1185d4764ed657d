package casebook

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
)

// TestMain lets the test binary play a daemon that writes a case without end.
func TestMain(m *testing.M) {
	if dir := os.Getenv("ARBITER_TEST_WRITE"); dir != "" {
		if err := writeForEver(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// writeForEver says on stdout which round it has written.
func writeForEver(dir string) error {
	b, err := Open(dir, Limits{}, hclog.NewNullLogger())
	if err != nil {
		return err
	}
	r := newRecord("20261121T061502-7f3a")
	c, err := b.Create(r)
	for round := 1; err == nil; round++ {
		r.Escapes = round
		r.Why = strings.Repeat("x", round*997%100_000)
		err = errors.Join(c.Log(Entry{At: opened, What: fmt.Sprint(round)}, true), c.Save(r))
		if _, werr := fmt.Println(round); werr != nil {
			return werr
		}
	}
	return err
}

// A daemon that is killed at any moment leaves a record that is whole and as
// new as its last word, a timeline that can be read, and a book that the next
// daemon owns.
func TestKilledWhileWriting(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for round := 1; round <= 12; round++ {
		dir := t.TempDir()
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), "ARBITER_TEST_WRITE="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		said := 0
		for sc := bufio.NewScanner(out); said < round*3 && sc.Scan(); said++ {
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		b := openBook(t, dir, Limits{})
		cases, err := b.Interrupted()
		if err != nil || len(cases) != 1 {
			t.Fatalf("after %d rounds: %v, %v", said, cases, err)
		}
		r, err := cases[0].Record()
		if err != nil || r.Escapes < said {
			t.Errorf("it wrote %d rounds, the record has %v, %v", said, r, err)
		}
		entries, err := b.Timeline(r.ID)
		if err != nil || len(entries) < r.Escapes {
			t.Errorf("%d lines of %d rounds, %v", len(entries), r.Escapes, err)
		}
	}
}
