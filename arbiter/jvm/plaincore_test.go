package jvm

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

func packed(t *testing.T, b []byte) string {
	t.Helper()
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	name := filepath.Join(t.TempDir(), "core.1.java.elf.zst")
	if err := os.WriteFile(name, z.EncodeAll(b, nil), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestPlainCore(t *testing.T) {
	t.Parallel()
	want := make([]byte, 8<<20+100)
	copy(want, "head")
	copy(want[4<<20:], "middle") // and the end is a hole
	got, err := plainCore(t.Context(), packed(t, want), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(got)
	if err != nil || !bytes.Equal(b, want) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	var st unix.Stat_t
	if err := unix.Stat(got, &st); err != nil || st.Blocks*512 > 1<<20 {
		t.Errorf("%d bytes on disk, %v", st.Blocks*512, err)
	}
	if got, err := plainCore(t.Context(), "/x/core.elf", ""); got != "/x/core.elf" || err != nil {
		t.Errorf("%s, %v", got, err)
	}
}

// A bundle from elsewhere cannot write outside of its directory.
func TestUnpackStaysInside(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{"usr/bin/java": true, "../escaped": false, "/etc/escaped": false} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := w.WriteHeader(&tar.Header{Name: name, Size: 2, Mode: 0o600, Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("hi")); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(t.TempDir(), "root")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		exe, err := unpack(packed(t, b.Bytes()), dir)
		if want != (err == nil) || want && exe != filepath.Join(dir, name) {
			t.Errorf("%s: %s, %v", name, exe, err)
		}
		if _, err := os.Stat(filepath.Join(filepath.Dir(dir), "escaped")); err == nil {
			t.Errorf("%s: it escaped", name)
		}
	}
}

func TestCause(t *testing.T) {
	t.Parallel()
	for out, want := range map[string]string{
		"Attaching...\njava.lang.Exception: no core\n\tat A.b\n":                          `"java.lang.Exception: no core"`,
		"Attaching...\n#\n# A fatal error has been detected by the JRE:\n#\n#  SIGBUS\n#": `"SIGBUS"`,
		"#\n# There is insufficient memory for the JRE.\n# Native":                        `"There is insufficient memory for the JRE."`,
		"first\nlast\n\n": `"last"`,
		"":                `""`,
	} {
		if got := cause([]byte(out)); got != want {
			t.Errorf("%q: %s, want %s", out, got, want)
		}
	}
}
