// Package version says which version of Towpath this binary is.
package version

import "runtime/debug"

// version is set by the linker: the tag, or the commit, that was built.
var version string

// String is the version for people and logs; "unknown" for a build that nobody told.
func String() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "unknown"
}
