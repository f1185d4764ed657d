package main

import (
	"context"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
)

// jdk is what a Java program and its compiler need of this machine.
var jdk = []string{"/usr/lib/jvm/java-17-openjdk-*/bin", "/usr/lib/jvm/java-17-openjdk-*/lib", "/usr/lib/jvm/java-17-openjdk-*/conf"}

// gdb is what it needs, with the C library's knowledge of threads.
var gdb = []string{"/usr/bin/gdb", "/usr/share/gdb", "/usr/lib/python3.*", "/lib/x86_64-linux-gnu/libthread_db.so.1"}

// jdkPath is the guest's PATH with the JDK in it.
var jdkPath = "PATH=/src/bin:/bin:/usr/bin" + jdkBin()

func jdkBin() string {
	found, err := filepath.Glob(jdk[0])
	if err != nil || len(found) == 0 {
		return "" // fromHost tells
	}
	return ":" + found[0]
}

// fromHost lists the regular files that the patterns name on this machine, and
// all below, for the same place in the guest; links are followed. What their
// programs and libraries are linked to comes along.
func fromHost(ctx context.Context, patterns []string) ([]file, error) {
	taken := map[string]file{}
	for _, pattern := range patterns {
		names, err := filepath.Glob(pattern)
		if err == nil && len(names) == 0 {
			err = fs.ErrNotExist
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", pattern, err)
		}
		for _, name := range names {
			if err := takeTree(ctx, name, taken); err != nil {
				return nil, err
			}
		}
	}
	files := make([]file, 0, len(taken))
	for _, f := range taken {
		files = append(files, f)
	}
	return files, nil
}

func takeTree(ctx context.Context, name string, taken map[string]file) error {
	return filepath.WalkDir(name, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := os.Stat(p)
		if err != nil || !st.Mode().IsRegular() {
			return nil // a directory, or a link to nowhere: documents that are not installed
		}
		taken[p] = file{name: p, mode: uint32(st.Mode().Perm()), host: p}
		if isProgram(p) {
			return takeLibraries(ctx, p, taken)
		}
		return nil
	})
}

// isProgram reports whether a file is an ELF program or library.
func isProgram(name string) bool {
	f, err := elf.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	return f.Type == elf.ET_EXEC || f.Type == elf.ET_DYN
}

// linked finds the paths in lines such as "libc.so.6 => /lib/libc.so.6 (0x7f…)"
// and "/lib64/ld-linux-x86-64.so.2 (0x7f…)".
var linked = regexp.MustCompile(`(?m)(/\S+) \(0x[0-9a-f]+\)$`)

func takeLibraries(ctx context.Context, program string, taken map[string]file) error {
	out, err := exec.CommandContext(ctx, "ldd", program).Output()
	if err != nil {
		return nil // statically linked
	}
	for _, m := range linked.FindAllSubmatch(out, -1) {
		name := string(m[1])
		st, err := os.Stat(name)
		if err != nil {
			return err
		}
		taken[name] = file{name: name, mode: uint32(st.Mode().Perm()), host: name}
	}
	return nil
}
