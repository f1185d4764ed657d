package main

import (
	"github.com/hashicorp/go-hclog"

	"github.com/arbiterd/arbiter/arbiter"
	"github.com/arbiterd/arbiter/arbiter/action"
	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/cri/cgroupfs"
)

// sources are the configured sources of containers.
func sources(c config, fs *cgroup.FS, _ hclog.Logger) []arbiter.Source {
	var out []arbiter.Source
	if paths := c.Source.Cgroupfs.Paths; len(paths) > 0 {
		out = append(out, cgroupfs.New(fs.Mount(), paths))
	}
	return out
}

// uploads are the stores that an `upload` step can name.
func uploads(c config) map[string]action.UploadTarget {
	out := map[string]action.UploadTarget{}
	for name, u := range c.Upload {
		out[name] = action.UploadTarget{Endpoint: u.Endpoint, Bucket: u.Bucket, CredentialsFile: u.CredentialsFile}
	}
	return out
}
