package main

import (
	"bufio"
	"debug/elf"
	_ "embed" // init.sh is carried in the program
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"strings"
)

//go:embed init.sh
var initScript []byte

// A file is one entry of the initramfs; Host is read where Data is nil.
type file struct {
	name string // absolute, in the guest
	mode uint32
	host string
	data []byte
}

// writeInitramfs writes the job and its surroundings as an uncompressed cpio
// archive: under TCG, unpacking a compressed one costs more than loading it.
func writeInitramfs(name string, job []file) error {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	files := []file{
		{name: "/init", mode: 0o755, data: initScript},
		{name: "/bin/busybox", mode: 0o755, host: busybox},
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	w := &cpio{w: bufio.NewWriterSize(f, 1<<20), made: map[string]bool{}}
	for _, e := range append(files, job...) {
		if err := w.add(e); err != nil {
			return fmt.Errorf("write initramfs: %s: %w", e.name, err)
		}
	}
	// The kernel opens /dev/console before init can mount devtmpfs.
	w.device("/dev/console", 5, 1)
	w.trailer()
	if err := w.w.Flush(); err != nil {
		return fmt.Errorf("write initramfs: %w", err)
	}
	return f.Close()
}

// cpio writes the "newc" format (Documentation/driver-api/early-userspace/
// buffer-format.rst): a header of 13 hexadecimal fields, the name, the data,
// each padded to 4 bytes. Errors stay in w until Flush.
type cpio struct {
	w    *bufio.Writer
	ino  int
	made map[string]bool
}

const (
	typeDir  = 0o040000
	typeFile = 0o100000
	typeChar = 0o020000
)

func (c *cpio) add(f file) error {
	c.dirs(path.Dir(f.name))
	if f.host == "" {
		c.header(f.name, typeFile|f.mode, len(f.data), 0, 0)
		c.w.Write(f.data)
		c.pad(len(f.data))
		return nil
	}
	h, err := os.Open(f.host)
	if err != nil {
		return err
	}
	defer h.Close()
	st, err := h.Stat()
	if err != nil {
		return err
	}
	size := int(st.Size())
	c.header(f.name, typeFile|f.mode, size, 0, 0)
	if n, err := io.Copy(c.w, io.LimitReader(h, st.Size())); err != nil || int(n) != size {
		return fmt.Errorf("copied %d of %d bytes of %s: %w", n, size, f.host, err)
	}
	c.pad(size)
	return nil
}

// dirs makes dir and its parents, each once.
func (c *cpio) dirs(dir string) {
	if dir == "/" || c.made[dir] {
		return
	}
	c.dirs(path.Dir(dir))
	c.made[dir] = true
	c.header(dir, typeDir|0o755, 0, 0, 0)
}

func (c *cpio) device(name string, major, minor int) {
	c.dirs(path.Dir(name))
	c.header(name, typeChar|0o600, 0, major, minor)
}

func (c *cpio) trailer() { c.header("/TRAILER!!!", 0, 0, 0, 0) }

func (c *cpio) header(name string, mode uint32, size, major, minor int) {
	c.ino++
	name = strings.TrimPrefix(name, "/")
	fmt.Fprintf(c.w, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		c.ino, mode, 0, 0, 1, 0, size, 0, 0, major, minor, len(name)+1, 0, name)
	c.pad(110 + len(name) + 1)
}

func (c *cpio) pad(n int) {
	for ; n%4 != 0; n++ {
		c.w.WriteByte(0)
	}
}

// isStatic reports whether an ELF program needs no interpreter.
func isStatic(name string) bool {
	f, err := elf.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return false
		}
	}
	return true
}
