package main

import (
	"fmt"

	"github.com/hashicorp/go-hclog"

	"github.com/arbiterd/arbiter/arbiter"
	"github.com/arbiterd/arbiter/arbiter/action"
	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/cri/cgroupfs"
	"github.com/arbiterd/arbiter/cri/containerd"
	"github.com/arbiterd/arbiter/cri/nri"
)

// sources are the configured sources of containers.
func sources(c config, fs *cgroup.FS, log hclog.Logger) ([]arbiter.Source, error) {
	var out []arbiter.Source
	if conf := c.Source.Containerd; conf.Address != "" {
		s, err := containerd.New(containerd.Config{
			Address: conf.Address, Namespaces: conf.Namespaces, MemoryRoot: fs.Mount(), Log: log.Named("containerd"),
		})
		if err != nil {
			return nil, fmt.Errorf("source.containerd: %w", err)
		}
		out = append(out, s)
	}
	if conf := c.Source.NRI; conf.Socket != "" {
		s, err := nri.New(nri.Config{Socket: conf.Socket, Index: conf.Index, MemoryRoot: fs.Mount(), Log: log.Named("nri")})
		if err != nil {
			return nil, fmt.Errorf("source.nri: %w", err)
		}
		out = append(out, s)
	}
	if paths := c.Source.Cgroupfs.Paths; len(paths) > 0 {
		out = append(out, cgroupfs.New(fs.Mount(), paths))
	}
	return out, nil
}

// uploads are the stores that an `upload` step can name.
func uploads(c config) map[string]action.UploadTarget {
	out := map[string]action.UploadTarget{}
	for name, u := range c.Upload {
		out[name] = action.UploadTarget{Endpoint: u.Endpoint, Bucket: u.Bucket, CredentialsFile: u.CredentialsFile}
	}
	return out
}
