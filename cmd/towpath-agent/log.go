package main

import (
	"fmt"
	"maps"

	"github.com/sirupsen/logrus"
)

// formatter is how lines of the log are written: json; console, for people; or console-wide, with everything that json has.
func formatter(format string, colors bool) (logrus.Formatter, error) {
	lines := &logrus.TextFormatter{FullTimestamp: true, ForceColors: colors, DisableColors: !colors}
	switch format {
	case "", "json":
		return &logrus.JSONFormatter{}, nil
	case "console":
		return brief{lines}, nil
	case "console-wide":
		return lines, nil
	}
	return nil, fmt.Errorf("logFormat: %q must be json, console or console-wide", format)
}

// brief leaves out what is the same in each line of one process.
type brief struct{ lines logrus.Formatter }

func (b brief) Format(entry *logrus.Entry) ([]byte, error) {
	fields := maps.Clone(entry.Data)
	delete(fields, "agent")
	short := *entry
	short.Data = fields
	return b.lines.Format(&short)
}
