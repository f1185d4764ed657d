package cgroup

// ForgetFreezers makes s believe that the host has no freezer at all.
func (s *FS) ForgetFreezers() { s.mounts.freezer, s.mounts.unified = "", "" }
