//go:build !unix

package gitsource

import (
	"errors"
	"os"
)

// lockFile has no way here to tell a living owner from a dead one.
func lockFile(string) (*os.File, error) {
	return nil, errors.New("mirrors of repositories are kept on Unix systems only")
}

func unlockFile(file *os.File) error { return file.Close() }
