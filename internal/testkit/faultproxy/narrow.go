package faultproxy

import "syscall"

// A sender on loopback would fill megabytes of buffers, where one on a narrow link fills some segments: so segments are as on Ethernet, and little is taken
// before it can leave.
const (
	window  = 64 << 10
	segment = 1400
	maxSeg  = 2 // TCP_MAXSEG, on Linux and macOS
)

// narrow prepares the socket that connections are accepted from, which inherit it.
func narrow(_, _ string, raw syscall.RawConn) error {
	var err error
	if controlErr := raw.Control(func(fd uintptr) {
		if err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, window); err == nil {
			err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, maxSeg, segment)
		}
	}); controlErr != nil {
		return controlErr
	}
	return err
}
