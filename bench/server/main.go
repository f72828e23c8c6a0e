// Command server is an HTTPS server in an API server's place: it answers a kilobyte, bodies of any size, and watches that say nothing, as fast as can be.
// It prints its address, and ends with its input.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "server:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := flag.NewFlagSet("server", flag.ContinueOnError)
	cert := flags.String("cert", "", "PEM file of the certificate")
	key := flags.String("key", "", "PEM file of its key")
	if err := flags.Parse(args); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	ended := make(chan error, 1)
	go func() { ended <- http.ServeTLS(listener, http.HandlerFunc(answer), *cert, *key) }()
	go func() {
		_, err := io.Copy(io.Discard, os.Stdin) // whoever started it is gone
		ended <- err
	}()
	return <-ended
}

func answer(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/upload":
		_, _ = io.Copy(io.Discard, r.Body)
	case "/watch":
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	default:
		size, err := strconv.ParseInt(r.URL.Query().Get("bytes"), 10, 64)
		if err != nil || size < 0 {
			http.Error(w, errors.Join(errors.New("bytes: how many"), err).Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
		_, _ = io.CopyN(w, zeros{}, size)
	}
}

type zeros struct{}

// Read implements io.Reader.
func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
