// Package tools holds nothing: this module of its own builds programs that
// tests need and Debian has not, or not new enough: an S3 server (versitygw)
// to upload to, and a Go debugger (delve) to open core files with. It is a
// module apart so that their dependencies are not the product's.
package tools
