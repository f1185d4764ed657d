package casebook

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"

	"github.com/arbiterd/arbiter/cri"
	"github.com/arbiterd/arbiter/policy"
)

var opened = time.Date(2026, 11, 21, 6, 15, 2, 0, time.UTC)

func openBook(t *testing.T, dir string, l Limits) *Book {
	t.Helper()
	b, err := Open(dir, l, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func newRecord(id string) *Record {
	at := opened
	if t, ok := TimeOf(id); ok {
		at = t
	}
	return &Record{
		ID: id, State: "held", Rule: "jvm-heap", Opened: at, Mode: policy.Enforce,
		RulePos: policy.Position{File: "10-jvm.toml", Line: 3, Column: 1},
		Facts: policy.Facts{
			At:        at,
			Container: cri.Container{Name: "app", Cgroup: "/kubepods/podx/c1", ID: "abcdef0123", Pod: cri.Pod{Namespace: "shop-eu", Name: "checkout-1"}},
			Trigger:   policy.OnLimit, Limit: policy.LimitOf(256 << 20), UsageBytes: 256 << 20,
		},
		Plan:      []string{"1. freeze", "2. snapshot"},
		Steps:     []StepRecord{},
		Artifacts: []Artifact{},
	}
}

func create(t *testing.T, b *Book, id string) *Case {
	t.Helper()
	c, err := b.Create(newRecord(id))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func closeCase(t *testing.T, c *Case, at time.Time) {
	t.Helper()
	r, err := c.Record()
	if err != nil {
		t.Fatal(err)
	}
	r.State, r.Closed, r.Outcome = "closed", at, OutcomeKill
	if err := errors.Join(c.Save(r), c.Close()); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, c *Case, step, name, content string) {
	t.Helper()
	f, err := c.Artifacts(step).Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestCaseRoundTrip(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := openBook(t, dir, Limits{})
	c := create(t, b, "")
	if !strings.HasPrefix(c.ID(), "20261121T061502-") {
		t.Errorf("id %s does not tell when the case opened", c.ID())
	}
	write(t, c, "snapshot", "processes.txt", "hello\n")
	if err := c.Log(Entry{At: opened, What: "held", Data: map[string]string{"usage": "1"}}, true); err != nil {
		t.Fatal(err)
	}
	arts, err := c.Finish(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if len(arts) != 1 {
		t.Errorf("artifacts %+v", arts)
	}
	if err := c.Save(newRecord(c.ID())); err != nil { // the casebook knows them
		t.Fatal(err)
	}
	if err := errors.Join(c.Close(), b.Close()); err != nil {
		t.Fatal(err)
	}

	b = openBook(t, dir, Limits{})
	got, err := b.Get(c.ID()[9:]) // a unique part
	if err != nil {
		t.Fatal(err)
	}
	want := newRecord(c.ID())
	want.Artifacts = []Artifact{{Name: "processes.txt", Step: "snapshot", Size: 6,
		SHA256: "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(policy.Limit{})); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
	entries, err := b.Timeline(c.ID())
	if err != nil || len(entries) != 1 || entries[0].What != "held" {
		t.Errorf("timeline %v, %v", entries, err)
	}
	checkModes(t, dir)
}

// checkModes proves that nobody else may look into a case.
func checkModes(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(dir, "cases"), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestCreateRefusesTakenAndForeignIDs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := openBook(t, dir, Limits{})
	closeCase(t, create(t, b, "20261121T061502-7f3a"), opened)
	if c, err := b.Create(newRecord("20261121T061502-7f3a")); !errors.Is(err, fs.ErrExist) || c != nil {
		t.Errorf("a taken id gave %v, %v", c, err)
	}
	if _, err := b.Create(newRecord("../../etc/x")); !errors.Is(err, ErrInvalidID) {
		t.Errorf("a path as id gave %v", err)
	}
	c := create(t, b, "")
	r := newRecord("20261121T061502-7f3a")
	if err := c.Save(r); err == nil {
		t.Error("a case was saved with another case's record")
	}
}

func TestOneOwner(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := openBook(t, dir, Limits{})
	if _, err := Open(dir, Limits{}, hclog.NewNullLogger()); !errors.Is(err, ErrInUse) {
		t.Errorf("a second daemon got %v", err)
	}
	b.Close()
	openBook(t, dir, Limits{})
}

// A daemon that dies between the temporary file and the rename leaves the old
// record; one that dies in the middle of a timeline's line leaves the others.
func TestInterruptedCase(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := openBook(t, dir, Limits{})
	id := "20261121T061502-7f3a"
	c := create(t, b, id)
	closeCase(t, create(t, b, "20261121T061501-0001"), opened)
	write(t, c, "snapshot", "processes.txt", "hello\n")
	half, err := c.Artifacts("core-dump").Create("core.1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := half.Write([]byte("half")); err != nil {
		t.Fatal(err)
	}
	if err := c.Log(Entry{At: opened, What: "held"}, true); err != nil {
		t.Fatal(err)
	}
	b.Close()
	plant(t, c.Dir(), "case.json.tmp", `{"id":"half`)
	appendTo(t, filepath.Join(c.Dir(), timelineFile), `{"at":"2026-11-21T06:15:03Z","wh`)

	b = openBook(t, dir, Limits{})
	cases, err := b.Interrupted()
	if err != nil || len(cases) != 1 || cases[0].ID() != id {
		t.Fatalf("interrupted cases: %v, %v", cases, err)
	}
	c = cases[0]
	if err := c.Log(Entry{At: opened, What: "closed"}, true); err != nil {
		t.Fatal(err)
	}
	arts, err := c.Finish(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	want := []Artifact{
		{Name: "core.1.partial", Size: 4, Partial: true, Why: "the daemon ended while it was written"},
		{Name: "processes.txt", Size: 6, SHA256: "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"},
	}
	if diff := cmp.Diff(want, arts); diff != "" {
		t.Errorf("artifacts (-want +got):\n%s", diff)
	}
	entries, err := b.Timeline(id)
	if err != nil || len(entries) != 2 || entries[0].What != "held" || entries[1].What != "closed" {
		t.Errorf("timeline %v, %v", entries, err)
	}
	closeCase(t, c, opened.Add(time.Minute))
	if again, err := b.Interrupted(); err != nil || len(again) != 0 {
		t.Errorf("after closing: %v, %v", again, err)
	}
}

func plant(t *testing.T, dir, name, content string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func appendTo(t *testing.T, path, content string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(content); err != nil {
		t.Fatal(err)
	}
}

func TestCorruptCasesAreSkippedAndTold(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cases := filepath.Join(dir, "cases")
	plant(t, filepath.Join(cases, "20261121T061502-0001"), recordFile, "{")
	plant(t, filepath.Join(cases, "20261121T061502-0002"), recordFile, `{"id":"20261121T061502-9999"}`)
	plant(t, filepath.Join(cases, "20261121T061502-0003"), "other", "")
	plant(t, filepath.Join(cases, "lost+found"), "x", "")
	plant(t, cases, "20261121T061502-0004", "a file")
	if err := os.Symlink("/etc", filepath.Join(cases, "20261121T061502-0005")); err != nil {
		t.Fatal(err)
	}
	b := openBook(t, dir, Limits{})
	closeCase(t, create(t, b, "20261121T061502-7f3a"), opened)
	list, err := b.List(Filter{})
	if len(list) != 1 || list[0].ID != "20261121T061502-7f3a" {
		t.Errorf("list %v", list)
	}
	for _, id := range []string{"0001", "0002", "0003", "0004", "0005"} {
		if err == nil || !strings.Contains(err.Error(), "061502-"+id) && !strings.Contains(err.Error(), "T061502-"+id) {
			t.Errorf("the error does not name case %s: %v", id, err)
		}
	}
	if cases, _ := b.Interrupted(); len(cases) != 0 {
		t.Errorf("corrupt cases as interrupted: %v", cases)
	}
}

func TestListFilters(t *testing.T) {
	t.Parallel()
	b := openBook(t, t.TempDir(), Limits{})
	for _, id := range []string{"20261121T061502-0001", "20261121T071502-0002", "20261121T081502-0003"} {
		r := newRecord(id)
		if strings.HasSuffix(id, "2") {
			r.Rule, r.Facts.Container = "other", cri.Container{}
			r.Facts.Container.Cgroup = "/system.slice/x.service"
		}
		c, err := b.Create(r)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(id, "3") {
			closeCase(t, c, r.Opened)
		}
	}
	tests := map[string]struct {
		filter Filter
		want   string
	}{
		"all":          {Filter{}, "0003 0002 0001"},
		"limit":        {Filter{Limit: 1}, "0003"},
		"rule":         {Filter{Rule: "other"}, "0002"},
		"outcome":      {Filter{Outcome: OutcomeKill}, "0002 0001"},
		"open":         {Filter{Open: true}, "0003"},
		"since":        {Filter{Since: opened.Add(time.Minute)}, "0003 0002"},
		"until":        {Filter{Until: opened.Add(time.Minute)}, "0001"},
		"namespace":    {Filter{Namespace: "shop-*"}, "0003 0001"},
		"container":    {Filter{Container: "app"}, "0003 0001"},
		"full name":    {Filter{Container: "shop-eu/*/app"}, "0003 0001"},
		"container id": {Filter{Container: "abcdef"}, "0003 0001"},
		"cgroup":       {Filter{Container: "/system.slice/*"}, "0002"},
		"trigger":      {Filter{Trigger: policy.OnUsage}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			list, err := b.List(tt.filter)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, r := range list {
				got = append(got, r.ID[16:])
			}
			if s := strings.Join(got, " "); s != tt.want {
				t.Errorf("got %q, want %q", s, tt.want)
			}
		})
	}
}

func TestFindID(t *testing.T) {
	t.Parallel()
	ids := []string{"20261121T061502-7f3a", "20261121T061502-0b0b", "20261120T000000-0001"}
	tests := map[string]struct {
		part, want string
		err        error
	}{
		"whole":     {"20261121T061502-7f3a", "20261121T061502-7f3a", nil},
		"tail":      {"7f3a", "20261121T061502-7f3a", nil},
		"day":       {"20261120", "20261120T000000-0001", nil},
		"two":       {"20261121", "", ErrAmbiguous},
		"none":      {"ffff", "", ErrNotFound},
		"empty":     {"", "", ErrInvalidID},
		"traversal": {"../7f3a", "", ErrInvalidID},
		"glob":      {"*", "", ErrInvalidID},
		"long":      {strings.Repeat("2", 100), "", ErrInvalidID},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := findID(ids, tt.part)
			if got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("findID(%q) = %q, %v", tt.part, got, err)
			}
		})
	}
}
