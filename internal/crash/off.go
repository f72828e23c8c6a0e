//go:build !crashpoints

// Package crash lets a test kill the process at a named point. In a normal build it does nothing and costs nothing; built with the tag crashpoints,
// TOWPATH_CRASH_RECORD=FILE appends the name of each point that is reached, and TOWPATH_CRASH_AT=NAME#N kills the process when it reaches the point
// NAME for the N-th time, counted from 1.
package crash

// Point is a place at which a test may kill the process.
func Point(string) {}
