package policy

// unreachable warns of rules that no container can get.
func unreachable(rules []*Rule) Diagnostics { return nil }
