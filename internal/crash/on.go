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

var (
	mu     sync.Mutex
	counts = map[string]int{}
)

// hash is what names of revisions and copies end in: it differs with their content, and a point is the same point whatever is deployed.
var hash = regexp.MustCompile(`-[0-9a-v]{10}\b`)

// Point is a place at which a test may kill the process.
func Point(name string) {
	name = hash.ReplaceAllString(name, "-HASH")
	mu.Lock()
	defer mu.Unlock()
	counts[name]++
	if record := os.Getenv("TOWPATH_CRASH_RECORD"); record != "" {
		file, err := os.OpenFile(record, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			_, err = fmt.Fprintf(file, "%s#%d\n", name, counts[name])
			file.Close()
		}
		if err != nil {
			panic("crash: " + err.Error())
		}
	}
	at, number, found := strings.Cut(os.Getenv("TOWPATH_CRASH_AT"), "#")
	if n, err := strconv.Atoi(number); found && err == nil && at == name && n == counts[name] {
		syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
		select {} // nothing of ours runs on while the signal arrives
	}
}
