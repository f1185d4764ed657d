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
	in := &inotify{watches: map[int32]watched{1: {dir: "/"}, 2: {dir: "/a"}, 3: {dir: "/a", limit: true}}}
	b := record(2, unix.IN_CREATE|unix.IN_ISDIR, "x", 15)
	b = append(b, record(3, unix.IN_MODIFY, "", 0)...)
	b = append(b, record(9, unix.IN_CREATE, "unknown watch", 3)...)
	b = append(b, record(2, unix.IN_IGNORED, "", 0)...)
	b = append(b, record(2, unix.IN_CREATE, "after ignored", 3)...)
	b = append(b, record(-1, unix.IN_Q_OVERFLOW, "", 0)...)
	b = append(b, record(1, unix.IN_DELETE, "cut", 0)[:18]...)
	want := []event{
		{mask: unix.IN_CREATE | unix.IN_ISDIR, dir: "/a", name: "x"},
		{mask: unix.IN_MODIFY, dir: "/a", limit: true},
		{mask: unix.IN_IGNORED, dir: "/a"},
		{mask: unix.IN_Q_OVERFLOW},
	}
	got := in.parse(b)
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(event{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func FuzzInotifyParse(f *testing.F) {
	f.Add(record(1, unix.IN_CREATE, "x", 15))
	f.Fuzz(func(t *testing.T, b []byte) {
		in := &inotify{watches: map[int32]watched{0: {dir: "/"}, 1: {dir: "/a"}}}
		if got := in.parse(b); len(got) > len(b)/unix.SizeofInotifyEvent {
			t.Errorf("%d events from %d bytes", len(got), len(b))
		}
	})
}
