// Package api is what the daemon and arbiterctl say to each other: HTTP with
// JSON over a unix socket. It uses the standard library alone.
package api

import "time"

// Hold is one line of `pause-list -o json`. Absent identities are "".
type Hold struct {
	ID          string    `json:"id"`
	State       string    `json:"state"`
	Rule        string    `json:"rule"`
	Trigger     string    `json:"trigger"`
	Step        string    `json:"step"`
	Cgroup      string    `json:"cgroup"`
	Namespace   string    `json:"namespace"`
	Pod         string    `json:"pod"`
	Container   string    `json:"container"`
	ContainerID string    `json:"containerID"`
	HeldSince   time.Time `json:"heldSince"`
	Deadline    time.Time `json:"deadline"`
	Then        string    `json:"then"`
	UsageBytes  uint64    `json:"usageBytes"`
	LimitBytes  uint64    `json:"limitBytes"`
	// Progress of a long step: "heap-dump 120 MiB of ~400 MiB".
	Progress string `json:"progress,omitempty"`
}

// Guard is one line of `guards`.
type Guard struct {
	Cgroup      string   `json:"cgroup"`
	Namespace   string   `json:"namespace"`
	Pod         string   `json:"pod"`
	Container   string   `json:"container"`
	ContainerID string   `json:"containerID"`
	Rule        string   `json:"rule"`
	Mode        string   `json:"mode"`
	State       string   `json:"state"`
	Freezer     string   `json:"freezer"`
	Missing     []string `json:"missing"` // why not, or not fully, guarded
	UsageBytes  uint64   `json:"usageBytes"`
	LimitBytes  *uint64  `json:"limitBytes"` // null: no limit
	// GrowthBytesPerSecond and SecondsToLimit are null where not known.
	GrowthBytesPerSecond *float64 `json:"growthBytesPerSecond"`
	SecondsToLimit       *float64 `json:"secondsToLimit"`
	BorrowedBytes        uint64   `json:"borrowedBytes"`
	GrantedBytes         uint64   `json:"grantedBytes"`
}

// Status is the daemon's own state.
type Status struct {
	Version       string         `json:"version"`
	Pid           int            `json:"pid"`
	Started       time.Time      `json:"started"`
	CgroupVersion int            `json:"cgroupVersion"`
	Policy        PolicyStatus   `json:"policy"`
	Sources       []SourceStatus `json:"sources"`
	Held          int            `json:"held"`
	HeldMax       int            `json:"heldMax"`
	Armed         int            `json:"armed"`
	ArmedMax      int            `json:"armedMax"`
	BorrowedBytes uint64         `json:"borrowedBytes"`
	BorrowedMax   uint64         `json:"borrowedMaxBytes"`
	Disarmed      []string       `json:"disarmed"` // "all", or targets disarmed by an operator until reload
	NodeRail      string         `json:"nodeRail"` // why no case opens now, else ""
	Degraded      []string       `json:"degraded"` // what this host cannot give, each a sentence
	StateDir      string         `json:"stateDir"`
	StateBytes    int64          `json:"stateBytes"`
}

// PolicyStatus tells which policy is in force.
type PolicyStatus struct {
	Digest   string    `json:"digest"`
	Rules    int       `json:"rules"`
	Files    []string  `json:"files"`
	Loaded   time.Time `json:"loaded"`
	Warnings []string  `json:"warnings"`
	// Error is why the last reload was refused, and since when; "" if it was not.
	Error      string    `json:"error"`
	ErrorSince time.Time `json:"errorSince,omitzero"`
}

// SourceStatus tells whether a source of containers answers.
type SourceStatus struct {
	Name  string    `json:"name"`
	Up    bool      `json:"up"`
	Error string    `json:"error"`
	Since time.Time `json:"since"`
}

// ResumeRequest, ExtendRequest, PauseRequest and DisarmRequest are the bodies
// of the operator's orders. Sizes and durations are written as in policies.
type ResumeRequest struct {
	Raise string `json:"raise,omitempty"`
}

type ExtendRequest struct {
	By string `json:"by"`
}

type PauseRequest struct {
	Target string `json:"target"`
	Rule   string `json:"rule,omitempty"`
}

type DisarmRequest struct {
	Target string `json:"target,omitempty"`
	All    bool   `json:"all,omitempty"`
}

// Explanation answers /v1/explain.
type Explanation struct {
	Text string `json:"text"`
}

// Done answers an order.
type Done struct {
	Case    string `json:"case,omitempty"`
	Message string `json:"message"`
}

// Error is the body of every answer that is not 2xx.
type Error struct {
	Message string `json:"error"`
}
