//go:build crashpoints

package crash

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// control is the file that says what is to be done, and points that to which the names of points are appended.
var (
	control = os.Getenv("TOWPATH_CRASH_CONTROL")
	points  = control + ".points"
)

var (
	mu     sync.Mutex
	order  string // as it was last read
	counts = map[string]int{}
)

// hash is what names of revisions and copies end in: it differs with their content, and a point is the same point whatever is deployed.
var hash = regexp.MustCompile(`-[0-9a-v]{10}\b`)

// Point is a place at which a test may kill the process.
func Point(name string) {
	if control == "" {
		return
	}
	name = hash.ReplaceAllString(name, "-HASH")
	mu.Lock()
	defer mu.Unlock()
	text, err := os.ReadFile(control)
	if err != nil || len(text) == 0 {
		return // nothing is to be done
	}
	if string(text) != order {
		order = string(text)
		clear(counts)
	}
	counts[name]++
	what, at, _ := strings.Cut(strings.SplitN(order, "\n", 2)[0], " ")
	switch what {
	case "record":
		record(fmt.Sprintf("%s#%d\n", name, counts[name]))
	case "kill":
		wanted, number, _ := strings.Cut(at, "#")
		if n, err := strconv.Atoi(number); err == nil && wanted == name && n == counts[name] {
			syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
			select {} // nothing of ours runs on while the signal arrives
		}
	}
}

func record(line string) {
	file, err := os.OpenFile(points, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = file.WriteString(line)
		file.Close()
	}
	if err != nil {
		panic("crash: " + err.Error())
	}
}
