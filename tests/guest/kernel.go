package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// tools are the programs that the rig runs, by the package that brings each.
var tools = []struct{ program, pkg string }{
	{"qemu-system-x86_64", "qemu-system-x86"},
	{"busybox", "busybox-static"},
	{"mkfs.ext4", "e2fsprogs"},
}

// installTools installs what is missing, and says so.
func installTools(ctx context.Context, out io.Writer) error {
	var missing []string
	for _, t := range tools {
		path, err := exec.LookPath(t.program)
		if err != nil || t.program == "busybox" && !isStatic(path) {
			missing = append(missing, t.pkg)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	fmt.Fprintln(out, "guest: installing", strings.Join(missing, " "), "with apt-get")
	if _, err := apt(ctx, nil, "apt-get", "-q", "update"); err != nil {
		return err
	}
	args := append([]string{"-q", "-y", "--no-install-recommends", "install"}, missing...)
	_, err := apt(ctx, nil, "apt-get", args...)
	return err
}

// A kernelSource is a place to look for a kernel: a meta package, in the
// machine's own package lists (release "") or in another Debian release's.
type kernelSource struct{ release, meta string }

// kernelSources is in order of preference for each series.
var kernelSources = map[string][]kernelSource{
	"5.10": {{"", "linux-image-cloud-amd64"}, {"bullseye", "linux-image-cloud-amd64"}},
	"6.1":  {{"", "linux-image-cloud-amd64"}, {"bookworm", "linux-image-cloud-amd64"}},
	"6.12": {
		{"", "linux-image-6.12-cloud-amd64"}, {"", "linux-image-cloud-amd64"},
		{"bookworm", "linux-image-6.12-cloud-amd64"}, {"trixie", "linux-image-cloud-amd64"},
	},
}

// fetchKernel returns the path of the series' vmlinuz, from the cache or from
// the first source that has it.
func fetchKernel(ctx context.Context, cache, series string, out io.Writer) (string, error) {
	sources, ok := kernelSources[series]
	if !ok {
		return "", errors.New("not a known series (want 5.10, 6.1 or 6.12, or -vmlinuz)")
	}
	image := filepath.Join(cache, "vmlinuz-"+series)
	if _, err := os.Stat(image); err == nil {
		return image, nil
	}
	var tried []error
	for _, s := range sources {
		name, err := fetchFrom(ctx, cache, series, s, image)
		if err == nil {
			fmt.Fprintln(out, "guest: kernel", series, "is", name)
			return image, nil
		}
		tried = append(tried, err)
	}
	return "", fmt.Errorf("cannot be had on this machine: %w", errors.Join(tried...))
}

// fetchFrom resolves the meta package to the image that it depends on now,
// downloads and unpacks that, and puts its vmlinuz at image.
func fetchFrom(ctx context.Context, cache, series string, s kernelSource, image string) (string, error) {
	opts, err := aptOptions(ctx, cache, s.release)
	if err != nil {
		return "", err
	}
	depends, err := apt(ctx, opts, "apt-cache", "depends", "--important", s.meta)
	if err != nil {
		return "", err
	}
	name := imagePackage(string(depends), series)
	if name == "" {
		return "", fmt.Errorf("%s in %q depends on no image of series %s", s.meta, s.release, series)
	}
	tmp, err := os.MkdirTemp(cache, "kernel-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	if err := aptIn(ctx, tmp, opts, "apt-get", "-q", "download", name); err != nil {
		return "", err
	}
	debs, err := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if err != nil || len(debs) != 1 {
		return "", fmt.Errorf("download %s: got %d packages", name, len(debs))
	}
	if err := aptIn(ctx, tmp, nil, "dpkg", "-x", debs[0], "root"); err != nil {
		return "", err
	}
	found, err := filepath.Glob(filepath.Join(tmp, "root", "boot", "vmlinuz-*"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("%s: got %d kernels", name, len(found))
	}
	return name, os.Rename(found[0], image)
}

// imagePackage finds, in the output of apt-cache depends, the image package
// of the series: linux-image-6.1.0-56-cloud-amd64 for 6.1.
func imagePackage(depends, series string) string {
	for f := range strings.FieldsSeq(depends) {
		if strings.HasPrefix(f, "linux-image-"+series+".") {
			return f
		}
	}
	return ""
}

// aptOptions makes apt work on another release's lists without touching the
// machine's: the machine's own Debian sources, renamed to that release, in a
// private state directory.
func aptOptions(ctx context.Context, cache, release string) ([]string, error) {
	if release == "" {
		return nil, nil
	}
	sites, err := debianSites(ctx)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(cache, "apt-"+release)
	for _, d := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	list := filepath.Join(dir, "debian.list")
	if err := os.WriteFile(list, []byte(sourceList(sites, release)), 0o644); err != nil {
		return nil, err
	}
	opts := []string{
		"-oDir::Etc::sourcelist=" + list, "-oDir::Etc::sourceparts=-",
		"-oDir::State::lists=" + filepath.Join(dir, "lists"),
		"-oDir::Cache=" + filepath.Join(dir, "cache"),
	}
	_, err = apt(ctx, opts, "apt-get", "-q", "update")
	return opts, err
}

// debianSites lists the archive and security sites of the machine's own apt
// configuration.
func debianSites(ctx context.Context) (sites []string, err error) {
	b, err := apt(ctx, nil, "apt-get", "indextargets", "--format", "$(REPO_URI) $(COMPONENT)", "Created-By: Packages")
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		uri, component, _ := strings.Cut(strings.TrimSpace(line), " ")
		if component == "main" && strings.Contains(uri, "/debian") && !seen[uri] {
			seen[uri] = true
			sites = append(sites, uri)
		}
	}
	if len(sites) == 0 {
		return nil, errors.New("apt on this machine knows no Debian archive to derive a source list from")
	}
	return sites, nil
}

func sourceList(sites []string, release string) string {
	const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
	signed := ""
	if _, err := os.Stat(keyring); err == nil {
		signed = "[signed-by=" + keyring + "] "
	}
	var b strings.Builder
	for _, site := range sites {
		suite := release
		if strings.Contains(site, "security") {
			suite += "-security"
		}
		fmt.Fprintf(&b, "deb %s%s %s main\n", signed, site, suite)
	}
	return b.String()
}

// apt runs one of apt's programs and returns its standard output; the error
// holds what it said.
func apt(ctx context.Context, opts []string, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, append(append([]string{}, opts...), args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return out.Bytes(), nil
}

func aptIn(ctx context.Context, dir string, opts []string, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, append(append([]string{}, opts...), args...)...)
	cmd.Dir = dir
	if b, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, bytes.TrimSpace(b))
	}
	return nil
}
