package jvm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// A Conversion makes a heap dump out of a core. The JVM never runs again for
// it: jhsdb, of the same JDK as the JVM's, reads the heap from the core.
type Conversion struct {
	Core     string // an ELF core; one that ends in .zst is unpacked first
	Binaries string // what KeepBinaries wrote
	JDK      string // home of a JDK whose libjvm.so is the JVM's; "": look in JDKs
	MaxBytes uint64 // of the dump, before compression; 0: none
	Progress func(done, total uint64)
}

// JDKs is where JDKs are looked for.
const JDKs = "/usr/lib/jvm/*"

// ErrNoJDK says that no JDK here is of the JVM's very build.
var ErrNoJDK = errors.New("no JDK of the same build")

// Convert writes the heap dump, zstd-compressed, to out. It needs room for an
// uncompressed one beside the core while it works.
func Convert(ctx context.Context, c Conversion, out Output) (Dump, error) {
	d, err := c.convert(ctx, out)
	if err != nil {
		return Dump{}, fmt.Errorf("convert %s: %w", c.Core, err)
	}
	return d, nil
}

func (c Conversion) convert(ctx context.Context, out Output) (Dump, error) {
	dir, err := os.MkdirTemp(filepath.Dir(c.Core), ".convert-")
	if err != nil {
		return Dump{}, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	root := filepath.Join(dir, "root")
	if err := os.Mkdir(root, 0o700); err != nil {
		return Dump{}, err
	}
	exe, err := unpack(c.Binaries, root)
	if err != nil {
		return Dump{}, err
	}
	home, err := c.findJDK(root)
	if err != nil {
		return Dump{}, err
	}
	if c.Core, err = plainCore(ctx, c.Core, dir); err != nil {
		return Dump{}, err
	}
	heap := filepath.Join(dir, "heap.hprof")
	if err := c.jhsdb(ctx, home, root, exe, heap); err != nil {
		return Dump{}, err
	}
	return c.pack(ctx, heap, out)
}

// findJDK finds the JDK whose libjvm.so is, byte by byte, the JVM's: jhsdb
// reads the heap by tables that the two must share.
func (c Conversion) findJDK(root string) (string, error) {
	var theirs string
	err := filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
		if err == nil && d.Name() == "libjvm.so" {
			theirs = p
			return filepath.SkipAll
		}
		return err
	})
	if err != nil || theirs == "" {
		return "", errors.Join(errors.New("no libjvm.so among the binaries"), err)
	}
	homes := []string{c.JDK}
	if c.JDK == "" {
		if homes, err = filepath.Glob(JDKs); err != nil {
			return "", err
		}
	}
	for _, home := range homes {
		same, err := sameFile(theirs, filepath.Join(home, "lib/server/libjvm.so"))
		if err != nil || !same {
			continue
		}
		if _, err := os.Stat(filepath.Join(home, "bin/jhsdb")); err == nil {
			return home, nil
		}
	}
	return "", fmt.Errorf("%w as the JVM's in %q (a JDK, with jhsdb, is needed)", ErrNoJDK, homes)
}

func sameFile(a, b string) (bool, error) {
	fa, err := os.Open(a)
	if err != nil {
		return false, err
	}
	defer fa.Close()
	fb, err := os.Open(b)
	if err != nil {
		return false, err
	}
	defer fb.Close()
	bufA, bufB := make([]byte, 1<<20), make([]byte, 1<<20)
	for {
		na, errA := io.ReadFull(fa, bufA)
		nb, errB := io.ReadFull(fb, bufB)
		if !bytes.Equal(bufA[:na], bufB[:nb]) {
			return false, nil
		}
		if errA != nil || errB != nil {
			return endOfFile(errA) && endOfFile(errB), nil
		}
	}
}

func endOfFile(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// jhsdb runs the JDK's debugger. SA_ALTROOT is where its native part looks for
// the files that the core names.
func (c Conversion) jhsdb(ctx context.Context, home, root, exe, heap string) error {
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(home, "bin/jhsdb"), "jmap",
		"--binaryheap", "--dumpfile", heap, "--exe", exe, "--core", c.Core)
	cmd.Env = []string{"SA_ALTROOT=" + root, "PATH=/usr/bin:/bin", "LANG=C.UTF-8", "HOME=" + filepath.Dir(heap)}
	cmd.Dir = filepath.Dir(heap)
	cmd.Stdout = &limited{&out, 1 << 20}
	cmd.Stderr = cmd.Stdout
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("jhsdb: %w: %s", err, cause(out.Bytes()))
	}
	if !bytes.Contains(out.Bytes(), []byte("heap written to")) {
		return fmt.Errorf("jhsdb: %s", cause(out.Bytes()))
	}
	return nil
}

// cause is the line of a Java program's output that names its exception, or
// what the virtual machine itself died of, which it says in lines that begin
// with #. Else it is the last one.
func cause(out []byte) string {
	var last []byte
	for l := range bytes.Lines(out) {
		fatal := bytes.HasPrefix(l, []byte("#"))
		if fatal {
			l = bytes.TrimLeft(l, "#")
		}
		if l = bytes.TrimSpace(l); len(l) == 0 || fatal && bytes.Contains(l, []byte("fatal error has been detected")) {
			continue
		}
		if last = l; fatal || bytes.Contains(l, []byte("Exception: ")) || bytes.Contains(l, []byte("Error: ")) {
			break
		}
	}
	return firstLine(last)
}

func (c Conversion) pack(ctx context.Context, heap string, out Output) (Dump, error) {
	f, err := os.Open(heap)
	if err != nil {
		return Dump{}, err
	}
	defer f.Close()
	d := dumper{options: DumpOptions{Progress: c.Progress}}
	if info, err := f.Stat(); err == nil {
		d.expect = uint64(info.Size())
	}
	limit := c.MaxBytes
	if limit == 0 {
		limit = 1 << 60
	}
	p, err := newPacker(out, limit, d.progress())
	if err != nil {
		return Dump{}, err
	}
	defer p.stop()
	if err := copyInto(ctx, p, f); err != nil {
		return Dump{}, err
	}
	h, err := p.finish()
	return Dump{Heap: h, Via: "core"}, err
}
