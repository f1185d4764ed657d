package policyfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/policy"
)

func put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func text(files []policy.File) string {
	var out []string
	for _, f := range files {
		out = append(out, filepath.Base(f.Name)+"="+string(f.Data))
	}
	return strings.Join(out, " ")
}

func TestLoadMasksAndSorts(t *testing.T) {
	t.Parallel()
	d := t.TempDir()
	usr, etc, run := filepath.Join(d, "usr"), filepath.Join(d, "etc"), filepath.Join(d, "run")
	put(t, filepath.Join(usr, "90-default.toml"), "usr")
	put(t, filepath.Join(usr, "50-b.toml"), "usr")
	put(t, filepath.Join(usr, "60-c.toml"), "usr")
	put(t, filepath.Join(etc, "50-b.toml"), "etc")
	put(t, filepath.Join(etc, "10-a.toml"), "etc")
	put(t, filepath.Join(etc, ".hidden.toml"), "no")
	put(t, filepath.Join(etc, "10-a.toml~"), "no")
	put(t, filepath.Join(etc, "README"), "no")
	if err := os.Symlink("/dev/null", filepath.Join(etc, "60-c.toml")); err != nil {
		t.Fatal(err)
	}
	files, err := Load([]string{usr, etc, run})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := text(files), "10-a.toml=etc 50-b.toml=etc 60-c.toml= 90-default.toml=usr"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if files[0].Name != filepath.Join(etc, "10-a.toml") {
		t.Errorf("named %s", files[0].Name)
	}
}

func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		spoil func(t *testing.T, dir string)
		says  string
	}{
		"world-writable file": {func(t *testing.T, dir string) {
			chmod(t, filepath.Join(dir, "b.toml"), 0o666)
		}, "b.toml: everybody may write it, mode 0666"},
		"world-writable directory": {func(t *testing.T, dir string) {
			chmod(t, dir, 0o777)
		}, "everybody may write it, mode 0777"},
		"FIFO": {func(t *testing.T, dir string) {
			if err := unix.Mkfifo(filepath.Join(dir, "f.toml"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "f.toml: not a regular file"},
		"directory": {func(t *testing.T, dir string) {
			if err := os.Mkdir(filepath.Join(dir, "d.toml"), 0o755); err != nil {
				t.Fatal(err)
			}
		}, "d.toml: not a regular file"},
		"dangling link": {func(t *testing.T, dir string) {
			if err := os.Symlink("nowhere", filepath.Join(dir, "l.toml")); err != nil {
				t.Fatal(err)
			}
		}, "l.toml: no such file"},
		"huge": {func(t *testing.T, dir string) {
			put(t, filepath.Join(dir, "h.toml"), "")
			if err := os.Truncate(filepath.Join(dir, "h.toml"), maxFile+1); err != nil {
				t.Fatal(err)
			}
		}, "h.toml: larger than 16MiB"},
		"foreign owner": {func(t *testing.T, dir string) {
			if os.Geteuid() != 0 {
				t.Skip("needs root to give a file away")
			}
			if err := os.Chown(filepath.Join(dir, "b.toml"), 12345, 12345); err != nil {
				t.Fatal(err)
			}
		}, "b.toml: belongs to uid 12345"},
		"foreign group": {func(t *testing.T, dir string) {
			if os.Geteuid() != 0 {
				t.Skip("needs root to give a file away")
			}
			if err := os.Chown(filepath.Join(dir, "b.toml"), 0, 12345); err != nil {
				t.Fatal(err)
			}
			chmod(t, filepath.Join(dir, "b.toml"), 0o664)
		}, "b.toml: group 12345 may write it"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			chmod(t, dir, 0o755)
			put(t, filepath.Join(dir, "a.toml"), "a")
			put(t, filepath.Join(dir, "b.toml"), "b")
			if _, err := Load([]string{dir}); err != nil {
				t.Fatalf("before: %v", err)
			}
			tt.spoil(t, dir)
			if _, err := Load([]string{dir}); err == nil || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), dir) {
				t.Errorf("got %v, want %q", err, tt.says)
			}
		})
	}
}

func chmod(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// The kubelet swaps ..data: a reader must see all files of one publication.
func TestLoadDuringConfigMapSwaps(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	chmod(t, dir, 0o755)
	publish := func(n int) {
		gen := fmt.Sprintf("..gen%d", n)
		for _, name := range []string{"a.toml", "b.toml", "c.toml"} {
			put(t, filepath.Join(dir, gen, name), fmt.Sprint(n))
		}
		tmp := filepath.Join(dir, "..data_tmp")
		if err := errors.Join(os.Symlink(gen, tmp), os.Rename(tmp, filepath.Join(dir, "..data"))); err != nil {
			t.Error(err)
		}
		if n > 0 {
			os.RemoveAll(filepath.Join(dir, fmt.Sprintf("..gen%d", n-1)))
		}
	}
	publish(0)
	for _, name := range []string{"a.toml", "b.toml", "c.toml"} {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	wg.Go(func() {
		for n := 1; n <= 300; n++ {
			publish(n)
		}
	})
	loaded := 0
	for range 2000 {
		files, err := Load([]string{dir})
		if err != nil {
			if !errors.Is(err, ErrChanging) && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("during swaps: %v", err)
			}
			continue
		}
		loaded++
		if len(files) != 3 || string(files[0].Data) != string(files[1].Data) || string(files[1].Data) != string(files[2].Data) {
			t.Fatalf("a mixed set: %s", text(files))
		}
	}
	wg.Wait()
	files, err := Load([]string{dir})
	if err != nil || text(files) != "a.toml=300 b.toml=300 c.toml=300" {
		t.Errorf("in the end: %s, %v", text(files), err)
	}
	if loaded == 0 {
		t.Error("never loaded while it was swapped")
	}
}

func TestReadFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	chmod(t, dir, 0o755)
	put(t, filepath.Join(dir, "b.toml"), "b")
	put(t, filepath.Join(dir, "d", "x.toml"), "x")
	chmod(t, filepath.Join(dir, "d"), 0o755)
	files, err := ReadFiles([]string{filepath.Join(dir, "b.toml"), filepath.Join(dir, "d")})
	if err != nil || text(files) != "b.toml=b x.toml=x" {
		t.Errorf("%s, %v", text(files), err)
	}
	if _, err := ReadFiles([]string{filepath.Join(dir, "none.toml")}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}
