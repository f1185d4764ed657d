package proc

// OOMScore is how the kernel rates the process as a victim: 0 (never) to 2000.
func (fs FS) OOMScore(pid int) (int, error) { return parse(fs, pid, "oom_score", number) }

// OOMScoreAdj is what the process' owner adds to its score: −1000 (never kill)
// to 1000.
func (fs FS) OOMScoreAdj(pid int) (int, error) { return parse(fs, pid, "oom_score_adj", number) }
