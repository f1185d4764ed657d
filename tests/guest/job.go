package main

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// buildJob compiles what is to run and lists the files that the guest gets:
// binaries, test data, and /job.sh, which init runs.
func buildJob(ctx context.Context, root, tmp string, o options, out io.Writer) ([]file, error) {
	files := binaries(filepath.Join(root, "bin"), out)
	if len(o.pkgs) > 0 {
		memleak, err := buildMemleak(ctx, root, tmp)
		if err != nil {
			return nil, err
		}
		files = append(files, memleak)
	}
	for _, a := range o.add {
		more, err := along(root, a)
		if err != nil {
			return nil, err
		}
		files = append(files, more...)
	}
	host, err := fromHost(ctx, o.host)
	if err != nil {
		return nil, err
	}
	files = append(files, host...)
	var script strings.Builder
	script.WriteString("status=0\n")
	for _, e := range o.env {
		name, value, _ := strings.Cut(e, "=")
		fmt.Fprintf(&script, "export %s=%s\n", name, quote(value))
	}
	for i, pkg := range o.pkgs {
		test, err := compile(ctx, root, pkg, filepath.Join(tmp, strconv.Itoa(i)+".test"))
		if err != nil {
			return nil, err
		}
		files = append(files, test.files...)
		argv := append([]string{test.binary}, testFlags(o)...)
		step(&script, test.dir, append(argv, o.args...))
	}
	if len(o.pkgs) == 0 {
		argv, extra, err := command(root, o.args)
		if err != nil {
			return nil, err
		}
		files = append(files, extra...)
		step(&script, "/src", argv)
	}
	script.WriteString("exit $status\n")
	return append(files, file{name: "/job.sh", mode: 0o755, data: []byte(script.String())}), nil
}

// step adds one command to the script; the first failure is the job's status.
func step(script *strings.Builder, dir string, argv []string) {
	fmt.Fprintf(script, "mkdir -p %[1]s; cd %[1]s || exit 126\n", quote(dir))
	for _, a := range argv {
		script.WriteString(quote(a) + " ")
	}
	script.WriteString("\nrc=$?; [ $status -ne 0 ] || status=$rc\n")
}

func testFlags(o options) []string {
	flags := []string{
		"-test.run=" + o.run,
		"-test.skip=" + o.skip,
		"-test.count=" + strconv.Itoa(o.count),
		// The test's own deadline tells more than the rig's: it comes first.
		"-test.timeout=" + max(o.timeout-30*time.Second, o.timeout/2).String(),
	}
	if !o.quiet {
		flags = append(flags, "-test.v")
	}
	if o.short {
		flags = append(flags, "-test.short")
	}
	return flags
}

// binaries lists what is in bin/, without what the guest has no loader for.
func binaries(bin string, out io.Writer) (files []file) {
	entries, err := os.ReadDir(bin)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		host := filepath.Join(bin, e.Name())
		if !e.Type().IsRegular() {
			continue
		}
		if !isStatic(host) {
			fmt.Fprintf(out, "guest: bin/%s is not a static program: left out\n", e.Name())
			continue
		}
		files = append(files, file{name: "/src/bin/" + e.Name(), mode: 0o755, host: host})
	}
	return files
}

// buildMemleak builds the allocator that kernel tests start, so that they run
// without a make before.
func buildMemleak(ctx context.Context, root, tmp string) (file, error) {
	binary := filepath.Join(tmp, "memleak")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "./cmd/memleak")
	build.Dir = root
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if b, err := build.CombinedOutput(); err != nil {
		return file{}, fmt.Errorf("go build ./cmd/memleak: %w\n%s", err, b)
	}
	return file{name: "/src/bin/memleak", mode: 0o755, host: binary}, nil
}

// along lists the regular files of name, which is below the module, with the
// modes and the place that they have there.
func along(root, name string) (files []file, err error) {
	abs, err := filepath.Abs(name)
	if err != nil {
		return nil, err
	}
	err = filepath.WalkDir(abs, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil || !filepath.IsLocal(rel) {
			return fmt.Errorf("%s is not below %s", p, root)
		}
		files = append(files, file{name: path.Join("/src", filepath.ToSlash(rel)), mode: uint32(st.Mode().Perm()), host: p})
		return nil
	})
	return files, err
}

// command finds the job's program: a file of the host below the module keeps
// its place in it, another is put into /usr/bin, a bare name is the guest's.
func command(root string, args []string) (argv []string, files []file, err error) {
	if !strings.Contains(args[0], "/") {
		return args, nil, nil
	}
	host, err := filepath.Abs(args[0])
	if err != nil {
		return nil, nil, err
	}
	if !isStatic(host) {
		return nil, nil, fmt.Errorf("%s: not a static program (build it with CGO_ENABLED=0)", args[0])
	}
	name := "/usr/bin/" + filepath.Base(host)
	if rel, err := filepath.Rel(root, host); err == nil && filepath.IsLocal(rel) {
		name = path.Join("/src", filepath.ToSlash(rel))
	}
	argv = append([]string{name}, args[1:]...)
	return argv, []file{{name: name, mode: 0o755, host: host}}, nil
}

// A testBinary is one package's compiled tests.
type testBinary struct {
	dir, binary string // in the guest
	files       []file
}

func compile(ctx context.Context, root, pkg, binary string) (testBinary, error) {
	list := exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}}", pkg)
	b, err := list.Output()
	if err != nil {
		return testBinary{}, fmt.Errorf("go list %s: %w", pkg, err)
	}
	dir := strings.TrimSpace(string(b))
	rel, err := filepath.Rel(root, dir)
	if err != nil || !filepath.IsLocal(rel) {
		return testBinary{}, fmt.Errorf("package %s is not in this module", pkg)
	}
	build := exec.CommandContext(ctx, "go", "test", "-c", "-o", binary, pkg)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if b, err := build.CombinedOutput(); err != nil {
		return testBinary{}, fmt.Errorf("go test -c %s: %w\n%s", pkg, err, b)
	}
	if _, err := os.Stat(binary); err != nil {
		return testBinary{}, fmt.Errorf("package %s has no tests", pkg)
	}
	t := testBinary{dir: path.Join("/src", filepath.ToSlash(rel))}
	t.binary = t.dir + "/" + filepath.Base(dir) + ".test"
	t.files = []file{{name: t.binary, mode: 0o755, host: binary}}
	data, err := tree(filepath.Join(dir, "testdata"), t.dir+"/testdata")
	t.files = append(t.files, data...)
	return t, err
}

// tree lists the regular files below a host directory, if it is there.
func tree(host, guest string) (files []file, err error) {
	if _, err := os.Stat(host); err != nil {
		return nil, nil
	}
	err = filepath.WalkDir(host, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(host, p)
		if err != nil {
			return err
		}
		files = append(files, file{name: path.Join(guest, filepath.ToSlash(rel)), mode: 0o644, host: p})
		return nil
	})
	return files, err
}

// quote makes one word of s for the shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
