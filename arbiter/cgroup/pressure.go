package cgroup

import (
	"fmt"
)

const filePressure = "memory.pressure"

// pressureReader finds where the kernel keeps the PSI of a cgroup's tasks.
// Version 1 has none; a hybrid tree has it if the same tasks are on the same
// path there, as runc and systemd put them.
func (s *FS) pressureReader(c Cgroup) (func() (pressure, error), error) {
	if s.mounts.unified == "" {
		return nil, fmt.Errorf("no cgroup2 is mounted: %w", ErrNotSupported)
	}
	d, err := openDir(s.mounts.unified, c.Path())
	if err != nil {
		return nil, fmt.Errorf("the cgroup2 tree has no such path: %w", ErrNotSupported)
	}
	defer d.close()
	if !d.has(filePressure) {
		return nil, fmt.Errorf("the kernel keeps no PSI: %w", ErrNotSupported)
	}
	if s.version == 1 {
		if err := s.sameTasks(c); err != nil {
			return nil, err
		}
	}
	return func() (pressure, error) { return s.readPressure(c.Path()) }, nil
}

// readPressure opens by path each time: one descriptor less for each cgroup.
func (s *FS) readPressure(path string) (pressure, error) {
	d, err := openDir(s.mounts.unified, path)
	if err != nil {
		return pressure{}, err
	}
	defer d.close()
	b, err := d.read(filePressure)
	if err != nil {
		return pressure{}, err
	}
	return parsePressure(b)
}

// sameTasks checks that every task of a version 1 cgroup is on the same path
// of the hybrid tree.
func (s *FS) sameTasks(c Cgroup) error {
	pids, err := c.Pids()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		m, err := readMembership(s.proc, pid)
		if err == nil && !within(m.unified, c.Path()) {
			return fmt.Errorf("process %d is in %s of the cgroup2 tree: %w", pid, m.unified, ErrNotSupported)
		}
	}
	return nil
}
