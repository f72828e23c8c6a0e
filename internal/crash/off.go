//go:build !crashpoints

// Package crash lets a test kill the process at a named point. In a normal build it does nothing and costs nothing. Built with the tag crashpoints, each
// point reads the file that TOWPATH_CRASH_CONTROL names: "record" appends the name of each point that is reached to FILE.points, and "kill NAME#N" kills
// the process when it reaches the point NAME for the N-th time since the file's content changed, counted from 1. A second line makes the content another.
package crash

// Point is a place at which a test may kill the process.
func Point(string) {}
