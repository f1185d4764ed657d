// Package s3 holds nothing: this module of its own builds the S3 server that
// the tests of arbiter/action upload to. It is a module apart so that the
// server's dependencies are not the product's.
package s3
