package main

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// request is one answered request of the agent, as the API server's audit log tells.
type request struct {
	Stage     string    `json:"stage"`
	Verb      string    `json:"verb"`
	URI       string    `json:"requestURI"`
	Received  time.Time `json:"requestReceivedTimestamp"`
	Answered  time.Time `json:"stageTimestamp"`
	User      struct{ Username string }
	ObjectRef struct{ Resource, Namespace, Name string }
	Status    struct{ Code int } `json:"responseStatus"`
}

// writes reports whether the request changed something.
func (r request) writes() bool {
	return slices.Contains([]string{"create", "patch", "update", "delete"}, r.Verb) && r.Status.Code < 300
}

// audit reads an API server's audit log from a place on.
type audit struct {
	path string
	at   int64
}

// skip leaves out all that is there.
func (a *audit) skip() error {
	info, err := os.Stat(a.path)
	if err == nil {
		a.at = info.Size()
	}
	return err
}

// since is what the agent asked for since the last skip. A watch counts when it begins.
func (a *audit) since() (requests []request, err error) {
	file, err := os.Open(a.path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if _, err := file.Seek(a.at, io.SeekStart); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var r request
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			break // the last line is being written
		}
		begins := r.Stage == "ResponseComplete" && r.Verb != "watch" || r.Stage == "ResponseStarted" && r.Verb == "watch"
		if begins && strings.HasSuffix(r.User.Username, ":"+agentAccount) {
			requests = append(requests, r)
		}
	}
	return requests, lines.Err()
}
