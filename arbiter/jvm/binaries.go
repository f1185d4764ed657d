package jvm

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/arbiter/proc"
)

// maxBinaries bounds the bundle; a JDK's libraries and its class data archive
// are some 60 MiB.
const maxBinaries = 512 << 20

// KeepBinaries writes a zstd-compressed tar of what a debugger needs beside a
// core of process pid: its program, first, then its libraries and class data
// archives, by the names under which the container knows them. A container's
// files are gone soon after it. They are read by inode, through map_files.
func KeepBinaries(ctx context.Context, fs proc.FS, pid int, w io.Writer) error {
	maps, err := fs.LargestMappings(ctx, pid, maxMappings)
	if err != nil {
		return fmt.Errorf("keep binaries of %d: %w", pid, err)
	}
	z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return fmt.Errorf("keep binaries of %d: %w", pid, err)
	}
	b := bundle{tar: tar.NewWriter(z), left: maxBinaries, seen: map[string]bool{}}
	_, err = proc.Abandon(ctx, func() (struct{}, error) { return struct{}{}, b.addAll(ctx, fs, pid, maps) })
	if err != nil {
		return fmt.Errorf("keep binaries of %d: %w", pid, err)
	}
	return errors.Join(b.tar.Close(), z.Close())
}

type bundle struct {
	tar  *tar.Writer
	left int64
	seen map[string]bool
}

func (b *bundle) addAll(ctx context.Context, fs proc.FS, pid int, maps []proc.Mapping) error {
	exe, err := os.Readlink(fs.Path(pid, "exe"))
	if err != nil {
		return err
	}
	if err := b.add(exe, fs.Path(pid, "exe")); err != nil {
		return err
	}
	for _, m := range maps {
		if err := ctx.Err(); err != nil {
			return err
		}
		code := len(m.Perms) > 2 && m.Perms[2] == 'x'
		if !strings.HasPrefix(m.Name, "/") || !code && !strings.HasSuffix(m.Name, ".jsa") {
			continue
		}
		if err := b.add(m.Name, fs.Path(pid, "map_files", fmt.Sprintf("%x-%x", m.Start, m.End))); err != nil {
			return err
		}
	}
	return nil
}

// add adds one file. What was unmapped meanwhile, and what is no file, is left
// out.
func (b *bundle) add(name, link string) error {
	name = path.Clean("/" + strings.TrimSuffix(name, " (deleted)"))[1:]
	if b.seen[name] {
		return nil
	}
	b.seen[name] = true
	f, err := os.OpenFile(link, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil
	}
	if b.left -= info.Size(); b.left < 0 {
		return fmt.Errorf("%w: over %d bytes of binaries", ErrTooLong, int64(maxBinaries))
	}
	err = b.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: info.Size(), Typeflag: tar.TypeReg})
	if err != nil {
		return err
	}
	_, err = io.CopyN(b.tar, f, info.Size())
	return err
}

// unpack unpacks a bundle below dir and returns the program's path there.
func unpack(bundleFile, dir string) (exe string, err error) {
	f, err := os.Open(bundleFile)
	if err != nil {
		return "", err
	}
	defer f.Close()
	z, err := zstd.NewReader(f, zstd.WithDecoderMaxMemory(256<<20))
	if err != nil {
		return "", err
	}
	defer z.Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	t := tar.NewReader(io.LimitReader(z, 2*maxBinaries))
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", fmt.Errorf("unpack %s: %w", bundleFile, err)
		}
		if err := extract(root, h, t); err != nil {
			return "", fmt.Errorf("unpack %s: %s: %w", bundleFile, h.Name, err)
		}
		if exe == "" {
			exe = filepath.Join(dir, h.Name)
		}
	}
	if exe == "" {
		return "", fmt.Errorf("unpack %s: it is empty", bundleFile)
	}
	return exe, nil
}

func extract(root *os.Root, h *tar.Header, r io.Reader) error {
	if h.Typeflag != tar.TypeReg {
		return errors.New("not a regular file")
	}
	if err := root.MkdirAll(filepath.Dir(h.Name), 0o700); err != nil {
		return err
	}
	f, err := root.OpenFile(h.Name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return alias(root, h.Name)
}

// soname matches a library's file name as far as programs ask for it.
var soname = regexp.MustCompile(`^.+\.so\.\d+`)

// alias gives a file the other names under which a core may name it: maps has
// /usr/lib/x/libz.so.1.3.1 where the loader followed links from /lib/libz.so.1.
// jhsdb tries each path with ever more of its beginning cut off, down to the
// last element.
func alias(root *os.Root, name string) error {
	base := path.Base(name)
	for _, short := range []string{base, soname.FindString(base)} {
		if short == "" || short == name {
			continue
		}
		if err := root.Link(name, short); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}
