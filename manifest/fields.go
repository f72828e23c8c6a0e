package manifest

// Child walks down the maps of an object's fields; nil where there is none.
func Child(fields map[string]any, path ...string) map[string]any {
	for _, name := range path {
		fields, _ = fields[name].(map[string]any)
	}
	return fields
}

// Ensure is the map under a name, made when it is not there.
func Ensure(fields map[string]any, name string) map[string]any {
	inner, ok := fields[name].(map[string]any)
	if !ok {
		inner = map[string]any{}
		fields[name] = inner
	}
	return inner
}

// Items of a list that are maps.
func Items(list any) (all []map[string]any) {
	values, _ := list.([]any)
	for _, v := range values {
		if m, ok := v.(map[string]any); ok {
			all = append(all, m)
		}
	}
	return all
}
