package jvm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
)

// A hprofBuilder writes a small dump by hand.
type hprofBuilder struct{ bytes.Buffer }

func (b *hprofBuilder) u(n int, v uint64) {
	var a [8]byte
	binary.BigEndian.PutUint64(a[:], v)
	b.Write(a[8-n:])
}

func (b *hprofBuilder) record(tag byte, body []byte) {
	b.WriteByte(tag)
	b.u(4, 0)
	b.u(4, uint64(len(body)))
	b.Write(body)
}

// parts are a dump's beginning, its objects and its end record.
func parts() (head, objects, tail []byte) {
	var b, body hprofBuilder
	b.WriteString("JAVA PROFILE 1.0.2\x00")
	b.u(4, 8)
	b.u(8, 1)
	body.u(8, 100)
	body.WriteString("shop/Cart")
	b.record(tagUTF8, body.Bytes())
	body.Reset()
	body.u(4, 1)
	body.u(8, 0xc1a55)
	body.u(4, 0)
	body.u(8, 100)
	b.record(tagLoadClass, body.Bytes())
	b.record(0x05, make([]byte, 12)) // a stack trace
	head = bytes.Clone(b.Bytes())

	b.Reset()
	body.Reset()
	body.WriteByte(subClass)
	body.u(8, 0xc1a55)
	body.Write(make([]byte, 4+48+4))
	body.u(2, 0) // constants
	body.u(2, 1) // statics
	body.u(8, 100)
	body.WriteByte(10)
	body.u(4, 7)
	body.u(2, 1) // fields
	body.u(8, 100)
	body.WriteByte(2)
	for range 3 {
		body.WriteByte(subInstance)
		body.u(8, 1)
		body.u(4, 0)
		body.u(8, 0xc1a55)
		body.u(4, 16)
		body.Write(make([]byte, 16))
	}
	body.WriteByte(subPrimArray)
	body.u(8, 2)
	body.u(4, 0)
	body.u(4, 1000)
	body.WriteByte(8)
	body.Write(make([]byte, 1000))
	body.WriteByte(0x05)
	body.u(8, 0xc1a55)
	b.record(tagSegment, body.Bytes())
	objects = bytes.Clone(b.Bytes())

	b.Reset()
	b.record(tagEnd, nil)
	return head, objects, b.Bytes()
}

func TestWalkHeap(t *testing.T) {
	t.Parallel()
	head, objects, tail := parts()
	whole := bytes.Join([][]byte{head, objects, tail}, nil)
	got, err := WalkHeap(bytes.NewReader(whole))
	if err != nil {
		t.Fatal(err)
	}
	want := Heap{Bytes: uint64(len(whole)), Objects: 4, Classes: []Class{{"byte[]", 1, 1000}, {"shop.Cart", 3, 48}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	plain := bytes.Clone(whole[:len(whole)-len(tail)])
	plain[len(head)] = tagHeapDump
	if again, err := WalkHeap(bytes.NewReader(plain)); err != nil || again.Objects != 4 {
		t.Errorf("one record without an end: %+v, %v", again, err)
	}
	for name, c := range map[string]struct {
		b   []byte
		why string
	}{
		"cut in a record":  {whole[:len(whole)-40], "record at byte"},
		"no end":           {whole[:len(whole)-9], "no end record"},
		"more after end":   {append(bytes.Clone(whole), tail...), "after the end"},
		"other magic":      {[]byte("JAVA PROFILE 1.0.3\x00" + string(whole[19:])), "does not begin"},
		"empty":            {nil, "does not begin"},
		"strange object":   {bytes.Join([][]byte{head, {tagSegment, 0, 0, 0, 0, 0, 0, 0, 1, 0x99}, tail}, nil), "unknown sub-record"},
		"object too large": {bytes.Join([][]byte{head, {tagSegment, 0, 0, 0, 0, 0, 0, 0, 2, 0x05, 1, 2, 3, 4, 5, 6, 7, 8}, tail}, nil), "beyond its segment"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := WalkHeap(bytes.NewReader(c.b)); !errors.Is(err, ErrBadDump) || !strings.Contains(err.Error(), c.why) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func FuzzWalkHeap(f *testing.F) {
	head, objects, tail := parts()
	f.Add(bytes.Join([][]byte{head, objects, tail}, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := WalkHeap(bytes.NewReader(b))
		if err != nil && h.Classes != nil {
			t.Errorf("both %v and %v", h, err)
		}
	})
}

func TestJavaName(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"shop/Cart": "shop.Cart", "[B": "byte[]", "[[I": "int[][]", "[Ljava/lang/String;": "java.lang.String[]", "": "", "[": "[]",
	} {
		if got := javaName(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// The streams are joined however the pipe cuts them.
func TestPacker(t *testing.T) {
	t.Parallel()
	head, objects, tail := parts()
	whole := bytes.Join([][]byte{head, objects, tail}, nil)
	for name, feed := range map[string]func(p *packer) error{
		"one stream": func(p *packer) error { return p.main(whole) },
		"by bytes": func(p *packer) error {
			for i := range whole {
				if err := p.main(whole[i : i+1]); err != nil {
					return err
				}
			}
			return nil
		},
		"two streams": func(p *packer) error {
			return errors.Join(p.main(head), p.segment(objects), p.main(tail))
		},
		"head late": func(p *packer) error {
			return errors.Join(p.main(head[:40]), p.segment(objects[:100]), p.segment(objects[100:]), p.main(head[40:]), p.main(tail))
		},
		"all at once": func(p *packer) error {
			return errors.Join(p.main(append(bytes.Clone(head), tail...)), p.segment(objects))
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, h, err := pack(t, 1<<20, feed)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, whole) {
				t.Errorf("%d bytes, want %d", len(got), len(whole))
			}
			if h.Objects != 4 || h.Classes[1].Name != "shop.Cart" {
				t.Errorf("found %+v", h)
			}
		})
	}
}

func TestPackerRefuses(t *testing.T) {
	t.Parallel()
	head, objects, tail := parts()
	for name, c := range map[string]struct {
		max  uint64
		feed func(p *packer) error
		want error
	}{
		"too long":    {100, func(p *packer) error { return p.main(bytes.Join([][]byte{head, objects, tail}, nil)) }, ErrTooLong},
		"no end":      {1 << 20, func(p *packer) error { return p.main(head) }, ErrBadDump},
		"rubbish":     {1 << 20, func(p *packer) error { return p.main(make([]byte, 1<<16)) }, ErrBadDump},
		"cut segment": {1 << 20, func(p *packer) error { return errors.Join(p.main(head), p.segment(objects[:500]), p.main(tail)) }, ErrBadDump},
		"nothing":     {1 << 20, func(*packer) error { return nil }, ErrBadDump},
		"beside too long": {8 << 20, func(p *packer) error {
			err := errors.Join(p.main(head), p.segment(objects))
			var late hprofBuilder
			late.record(0x05, make([]byte, 3<<20))
			return errors.Join(err, p.main(late.Bytes()))
		}, ErrBadDump},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := pack(t, c.max, c.feed); !errors.Is(err, c.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// pack runs a packer and decompresses what it wrote.
func pack(t *testing.T, limit uint64, feed func(*packer) error) ([]byte, Heap, error) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "x.zst"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := newPacker(f, limit, func(uint64) {})
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	if err := feed(p); err != nil {
		return nil, Heap{}, err
	}
	h, err := p.finish()
	if err != nil {
		return nil, Heap{}, err
	}
	packed, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	z, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	got, err := z.DecodeAll(packed, nil)
	if err != nil {
		t.Fatal(err)
	}
	return got, h, nil
}

func TestReplies(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]int{"JDK 17.0.21\n": 17, "x\nJDK 25.0.3": 25, "JDK 8.0_412": 8, "JDK 1.8.0": 8, "JDK 11": 11, "none": 0} {
		got, err := parseVersion([]byte(in))
		if got != want || (want == 0) != (err != nil) {
			t.Errorf("%q: %d, %v", in, got, err)
		}
	}
	const serial = ` def new generation   total 78656K, used 1K [0x1, 0x2, 0x3)
  eden space 69952K,   2% used [0x1, 0x2, 0x3)
 tenured generation   total 174784K, used 4K [0x1, 0x2, 0x3)
 Metaspace       used 80K, committed 320K, reserved 1114112K`
	for in, want := range map[string]uint64{
		serial: 5 << 10,
		" garbage-first heap   total 653312K, used 110264K [0x0, 0x1)":                             110264 << 10,
		"garbage-first heap   total reserved 1048576K, committed 389120K, used 110926K [0x0, 0x1)": 110926 << 10,
		"": 0,
	} {
		if got := heapUsed([]byte(in)); got != want {
			t.Errorf("%q: %d, want %d", in, got, want)
		}
	}
}

func FuzzParseReply(f *testing.F) {
	f.Add([]byte("0\nDumping heap"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseReply(bytes.NewReader(b), 1<<10)
		if err != nil && got != nil {
			t.Errorf("both %q and %v", got, err)
		}
	})
}
