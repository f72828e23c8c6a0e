package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"time"

	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
)

// lead leads an address of this machine to a port of the controller's pod until ctx ends: clusters have networks of their own. It leads there anew when the pod
// is another, or a connection broke.
func (i *installation) lead(ctx context.Context, address, port string) {
	for ctx.Err() == nil {
		if pod, err := i.pod(ctx); err == nil {
			_ = i.leadTo(ctx, pod, address, port) // whoever connects next sees whether it leads there again
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (i *installation) leadTo(ctx context.Context, pod, address, port string) error {
	host, own, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	over, upgrader, err := spdy.RoundTripperFor(i.config)
	if err != nil {
		return err
	}
	to := i.kube.CoreV1().RESTClient().Post().Namespace(controllerNamespace).Resource("pods").Name(pod).SubResource("portforward").URL()
	forwarder, err := portforward.NewOnAddressesWithContext(ctx, spdy.NewDialer(upgrader, &http.Client{Transport: over}, http.MethodPost, to), []string{host},
		[]string{own + ":" + port}, make(chan struct{}), io.Discard, io.Discard)
	if err != nil {
		return err
	}
	return forwarder.ForwardPorts()
}
