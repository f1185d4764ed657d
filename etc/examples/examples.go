// Package examples holds the example policies for the tests that run them.
package examples

import "embed"

// Policies is the directory policy.
//
//go:embed policy/*.toml
var Policies embed.FS
