package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// Identity is the UID of a cluster's namespace kube-system: the one thing that a cluster has from its first to its last day and shares with no other. It is ""
// where the agent may not read it, or reaches no cluster.
func Identity(ctx context.Context, way http.RoundTripper) (uid string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://kubernetes/api/v1/namespaces/kube-system", nil)
	if err != nil {
		return "", err
	}
	response, err := way.RoundTrip(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	const most = 1 << 20
	text, err := io.ReadAll(io.LimitReader(response.Body, most))
	switch {
	case err != nil:
		return "", err
	case response.StatusCode == http.StatusForbidden, response.StatusCode == http.StatusNotFound:
		return "", nil
	case response.StatusCode != http.StatusOK:
		return "", fmt.Errorf("the API server answered %s: %s", response.Status, shown(string(text), 200))
	}
	var namespace struct{ Metadata struct{ UID string } }
	if err := json.Unmarshal(text, &namespace); err != nil {
		return "", fmt.Errorf("the namespace kube-system cannot be read: %w", err)
	}
	if len(namespace.Metadata.UID) > 128 {
		return "", fmt.Errorf("a UID of %d characters is none", len(namespace.Metadata.UID))
	}
	return namespace.Metadata.UID, nil
}
