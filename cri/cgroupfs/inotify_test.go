package cgroupfs

import (
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func record(wd int32, mask uint32, name string, pad int) []byte {
	var b []byte
	b = binary.NativeEndian.AppendUint32(b, uint32(wd))
	b = binary.NativeEndian.AppendUint32(b, mask)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = binary.NativeEndian.AppendUint32(b, uint32(len(name)+pad))
	return append(append(b, name...), make([]byte, pad)...)
}

func TestInotifyParse(t *testing.T) {
	t.Parallel()
	in := &inotify{dirs: map[int32]string{1: "/", 2: "/a"}}
	b := record(2, unix.IN_CREATE|unix.IN_ISDIR, "x", 15)
	b = append(b, record(9, unix.IN_CREATE, "unknown watch", 3)...)
	b = append(b, record(2, unix.IN_IGNORED, "", 0)...)
	b = append(b, record(2, unix.IN_CREATE, "after ignored", 3)...)
	b = append(b, record(-1, unix.IN_Q_OVERFLOW, "", 0)...)
	b = append(b, record(1, unix.IN_DELETE, "cut", 0)[:18]...)
	want := []event{
		{unix.IN_CREATE | unix.IN_ISDIR, "/a", "x"},
		{unix.IN_IGNORED, "/a", ""},
		{unix.IN_Q_OVERFLOW, "", ""},
	}
	got := in.parse(b)
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(event{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func FuzzInotifyParse(f *testing.F) {
	f.Add(record(1, unix.IN_CREATE, "x", 15))
	f.Fuzz(func(t *testing.T, b []byte) {
		in := &inotify{dirs: map[int32]string{0: "/", 1: "/a"}}
		if got := in.parse(b); len(got) > len(b)/unix.SizeofInotifyEvent {
			t.Errorf("%d events from %d bytes", len(got), len(b))
		}
	})
}
