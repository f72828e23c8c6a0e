//go:build unix

package gitsource

import (
	"errors"
	"os"
	"syscall"
)

// lockFile takes the lock that says who may write into a mirror. The system gives it up when the process ends, in whatever way.
func lockFile(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = errLocked
		}
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// unlockFile gives the lock up. Closing the file would not always do: a process that is being started at this moment has a copy of it.
func unlockFile(file *os.File) error {
	return errors.Join(syscall.Flock(int(file.Fd()), syscall.LOCK_UN), file.Close())
}
