package action

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/arbiterd/arbiter/policy"
)

// Profile fetches profiles from a Go program's pprof handler, on the loopback
// address of its network namespace.
type Profile struct{ policy.ProfileOptions }

var _ Action = Profile{}

func newProfile(o policy.ProfileOptions) Profile { return Profile{o} }

// Run fetches every profile; those that came are kept if others failed.
func (a Profile) Run(ctx context.Context, env Env) (Result, error) {
	// Not only Go programs serve pprof, so any process of the container will
	// do: what counts is its network namespace.
	_, pid, err := runtimeTarget(ctx, env, "auto")
	if err != nil {
		return Result{}, fmt.Errorf("profile: %w", err)
	}
	var res Result
	lent, err := elastic(ctx, env, func(ctx context.Context) (err error) {
		res, err = a.fetch(ctx, env, pid)
		return err
	})
	if err != nil {
		return res, fmt.Errorf("profile: %w", err)
	}
	res.Details["lent-bytes"] = fmt.Sprint(lent)
	return res, nil
}

func (a Profile) fetch(ctx context.Context, env Env, pid int) (Result, error) {
	server := newPprof(env, pid, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(a.Port)), a.Path)
	res := Result{Details: map[string]string{"pid": fmt.Sprint(pid), "from": server.String()}}
	var got []string
	var errs []error
	for _, name := range a.Profiles {
		b, err := server.get(ctx, name)
		if err == nil {
			err = keep(env, profileFile(name, pid, b), b)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		got = append(got, fmt.Sprintf("%s %s", name, policy.FormatBytes(uint64(len(b)))))
	}
	res.Summary = "profiles: " + strings.Join(got, ", ")
	return res, errors.Join(errs...)
}

// profileFile names a profile by what it holds: gzipped protobuf, or text.
func profileFile(name string, pid int, b []byte) string {
	base, _, _ := strings.Cut(name, "?")
	ext := "txt"
	if len(b) > 1 && b[0] == 0x1f && b[1] == 0x8b {
		ext = "pb.gz"
	}
	return fmt.Sprintf("%s.%d.%s", fileName(base), pid, ext)
}
