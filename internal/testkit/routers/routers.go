// Package routers is for tests of traffic that is divided: it makes a cluster know the kinds of routers, and looks on while they are written.
package routers

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"
)

//go:embed crds
var crds embed.FS

// Install makes a cluster know the kinds of SMI, Istio and the Gateway API, and returns once it serves them. There are no routers behind them.
func Install(ctx context.Context, kubeconfig string) error {
	client, err := clientOf(kubeconfig)
	if err != nil {
		return err
	}
	for _, name := range []string{"smi", "istio", "gateway"} {
		text, err := crds.ReadFile("crds/" + name + ".yaml")
		if err != nil {
			return err
		}
		documents := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
		for {
			definition := &unstructured.Unstructured{}
			if err := documents.Decode(definition); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return err
			}
			if definition.Object == nil {
				continue
			}
			if err := install(ctx, client, definition); err != nil {
				return fmt.Errorf("%s: %w", definition.GetName(), err)
			}
		}
	}
	return nil
}

func clientOf(kubeconfig string) (*dynamic.DynamicClient, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	return dynamic.NewForConfig(config)
}

func install(ctx context.Context, client dynamic.Interface, definition *unstructured.Unstructured) error {
	definitions := client.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	if _, err := definitions.Create(ctx, definition, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	group, _, _ := unstructured.NestedString(definition.Object, "spec", "group")
	plural, _, _ := unstructured.NestedString(definition.Object, "spec", "names", "plural")
	versions, _, _ := unstructured.NestedSlice(definition.Object, "spec", "versions")
	kind := client.Resource(schema.GroupVersionResource{Group: group, Version: versions[0].(map[string]any)["name"].(string), Resource: plural})
	for {
		_, err := kind.Namespace("default").List(ctx, metav1.ListOptions{Limit: 1})
		if err == nil || !apierrors.IsNotFound(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}
