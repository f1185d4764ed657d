package cgroupfs

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/cri"
)

// TestStaleEvents replays what a slow reader of inotify gets: events of a
// cgroup that has been removed and made again since.
func TestStaleEvents(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	glob, err := parsePattern("/*")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	in, err := newInotify()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	w := &watcher{root: root, patterns: patterns{glob}, in: in, known: map[string]known{}, emit: func(ev cri.Event) {
		got = append(got, map[cri.EventKind]string{cri.Added: "+", cri.Removed: "-"}[ev.Kind]+ev.Container.Cgroup)
	}}
	create := event{mask: unix.IN_CREATE | unix.IN_ISDIR, dir: "/", name: "a"}
	remove := event{mask: unix.IN_DELETE | unix.IN_ISDIR, dir: "/", name: "a"}
	step := func(what string, ev event, want ...string) {
		t.Helper()
		got = nil
		if err := w.handle(t.Context(), ev); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: -want +got:\n%s", what, diff)
		}
	}
	step("created, but gone already", create)
	if err := os.MkdirAll(filepath.Join(root, "a"), 0o755); err != nil {
		t.Fatal(err)
	}
	step("created", create, "+/a")
	step("created twice", create)
	step("removal of a predecessor", remove)
	w.known["/a"] = known{ino: w.known["/a"].ino + 1} // the one reported is gone
	step("created anew, its removal yet to be read", create, "-/a", "+/a")
	if err := os.Remove(filepath.Join(root, "a")); err != nil {
		t.Fatal(err)
	}
	step("removed", remove, "-/a")
	step("removed twice", remove)
}
