package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
)

func TestEachFormatOfTheLogSaysWhatItIsToSay(t *testing.T) {
	for name, c := range map[string]struct {
		format     string
		colors     bool
		has, lacks []string
	}{
		"json by default": {"", false, []string{`"agent":"prod"`, `"path":"/api"`, `"msg":"request"`}, nil},
		"console leaves out what each line would say": {"console", false, []string{"msg=request", "path=/api"}, []string{"prod", "\x1b["}},
		"console-wide says all":                       {"console-wide", false, []string{"msg=request", "path=/api", "agent=prod"}, []string{"\x1b["}},
		"colours for a console":                       {"console", true, []string{"\x1b[", "request"}, []string{"prod"}},
	} {
		t.Run(name, func(t *testing.T) {
			lines, err := formatter(c.format, c.colors)
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			log := logrus.New()
			log.SetOutput(&out)
			log.SetFormatter(lines)
			log.WithField("agent", "prod").WithField("path", "/api").Info("request")
			for _, want := range c.has {
				if !strings.Contains(out.String(), want) {
					t.Errorf("no %q in %q", want, &out)
				}
			}
			for _, not := range c.lacks {
				if strings.Contains(out.String(), not) {
					t.Errorf("%q is in %q", not, &out)
				}
			}
		})
	}
	if _, err := formatter("xml", false); err == nil || !strings.Contains(err.Error(), "json, console or console-wide") {
		t.Errorf("a format that is none: %v", err)
	}
}
