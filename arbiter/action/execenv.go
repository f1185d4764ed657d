package action

import (
	"fmt"
	"maps"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

const hostPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// variables are the case's facts and the rule's own.
func (x Exec) variables(env Env) map[string]string {
	c := env.Facts.Container
	vars := map[string]string{
		"ARBITER_CASE":           env.Case,
		"ARBITER_RULE":           ruleName(env),
		"ARBITER_STEP":           env.Step.Name,
		"ARBITER_TRIGGER":        string(env.Facts.Trigger),
		"ARBITER_WHY":            env.Facts.Why,
		"ARBITER_CGROUP":         c.Cgroup,
		"ARBITER_CGROUP_VERSION": strconv.Itoa(env.Facts.CgroupVersion),
		"ARBITER_NAMESPACE":      c.Pod.Namespace,
		"ARBITER_POD":            c.Pod.Name,
		"ARBITER_POD_UID":        c.Pod.UID,
		"ARBITER_CONTAINER":      c.Name,
		"ARBITER_CONTAINER_ID":   c.ID,
		"ARBITER_IMAGE":          c.Image,
		"ARBITER_PID":            strconv.Itoa(c.Pid),
		"ARBITER_RUNTIME":        env.Facts.Runtime,
		"ARBITER_USAGE_BYTES":    strconv.FormatUint(env.Facts.UsageBytes, 10),
		"ARBITER_LIMIT_BYTES":    env.Facts.Limit.String(),
	}
	maps.Copy(vars, x.Env)
	return vars
}

// environ is vars as a program gets them.
func environ(vars map[string]string) []string {
	list := make([]string, 0, len(vars))
	for _, key := range slices.Sorted(maps.Keys(vars)) {
		// The kernel takes no NUL in a variable.
		list = append(list, key+"="+strings.ReplaceAll(vars[key], "\x00", ""))
	}
	return list
}

// credentialOf is the user that a program runs as; nil for the daemon's own.
func credentialOf(name string) (*syscall.Credential, error) {
	if name == "" || name == "root" {
		return nil, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("look up user: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("look up user %s: uid: %w", name, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("look up user %s: gid: %w", name, err)
	}
	ids, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("look up groups of user %s: %w", name, err)
	}
	cred := &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	for _, id := range ids {
		if n, err := strconv.ParseUint(id, 10, 32); err == nil {
			cred.Groups = append(cred.Groups, uint32(n))
		}
	}
	return cred, nil
}
