package render

import "slices"

// Files lists the files whose content was read, by their physical paths.
func (t Trace) Files() []string {
	var files []string
	for _, r := range t.Records {
		if r.Kind == readFile && !slices.Contains(files, r.Path) {
			files = append(files, r.Path)
		}
	}
	return files
}
