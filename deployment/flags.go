package deployment

import "maps"

// Flags are what a command line gives for a file.
type Flags struct {
	Application string            // "": the file's
	Account     string            // for targets that name none
	Targets     []string          // in place of targetFilters; empty: the file's
	Context     map[string]string // over contextOverrides
}

// Take puts flags into the file.
func (f *File) Take(flags Flags) {
	if flags.Application != "" {
		f.Application = flags.Application
	}
	if len(flags.Targets) > 0 {
		f.TargetFilters = flags.Targets
	}
	for i := range f.Targets {
		if f.Targets[i].Account == "" {
			f.Targets[i].Account = flags.Account
		}
	}
	if len(flags.Context) > 0 && f.ContextOverrides == nil {
		f.ContextOverrides = map[string]string{}
	}
	maps.Copy(f.ContextOverrides, flags.Context)
}
