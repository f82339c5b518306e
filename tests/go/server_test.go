// Package suite drives the finished binary with client-go and controller-runtime: what operators are made of.
//
// One `pintle up` serves all tests; each test has a namespace of its own. Without PINTLE_BINARY nothing can be
// tested, and the run says so.
package suite

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// How long a state may take to be reached. Far above what is needed, so that a busy machine does not matter.
const patience = 60 * time.Second

// The cluster that all tests share.
var (
	config     *rest.Config
	kubeconfig string
)

func TestMain(m *testing.M) {
	binary := os.Getenv("PINTLE_BINARY")
	if binary == "" {
		fmt.Println("skipped: PINTLE_BINARY is unset")
		os.Exit(0)
	}
	code, err := withServer(binary, m.Run)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(code)
}

// Starts a cluster, runs, and ends it; a server that does not end well fails the suite.
func withServer(binary string, run func() int) (int, error) {
	folder, err := os.MkdirTemp("", "pintle-go-suite-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(folder)
	kubeconfig = filepath.Join(folder, "kubeconfig")
	log, err := os.Create(filepath.Join(folder, "log"))
	if err != nil {
		return 0, err
	}
	server := exec.Command(binary, "up", "--listen", "127.0.0.1:0", "--sim-nodes", "3",
		"--data-dir", filepath.Join(folder, "data"), "--kubeconfig", kubeconfig)
	server.Stdout, server.Stderr = log, log
	if err := server.Start(); err != nil {
		return 0, err
	}
	defer server.Process.Kill()
	if err := untilReady(); err != nil {
		said, _ := os.ReadFile(log.Name())
		return 0, fmt.Errorf("the server did not become ready: %w\n%s", err, said)
	}
	code := run()
	_ = server.Process.Signal(syscall.SIGTERM)
	if err := server.Wait(); err != nil {
		said, _ := os.ReadFile(log.Name())
		return 0, fmt.Errorf("the server ended badly: %w\n%s", err, said)
	}
	return code, nil
}

func untilReady() error {
	return wait.PollUntilContextTimeout(context.Background(), 20*time.Millisecond, patience, true,
		func(ctx context.Context) (bool, error) {
			loaded, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
			if err != nil {
				return false, nil
			}
			loaded.QPS, loaded.Burst = -1, -1
			client, err := kubernetes.NewForConfig(loaded)
			if err != nil {
				return false, err
			}
			if client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error() != nil {
				return false, nil
			}
			config = loaded
			return true, nil
		})
}

// A client that sends and takes protobuf only, as the core components do.
func protobufConfig() *rest.Config {
	own := rest.CopyConfig(config)
	own.ContentType = runtime.ContentTypeProtobuf
	own.AcceptContentTypes = runtime.ContentTypeProtobuf
	return own
}

func clientset(t *testing.T, config *rest.Config) *kubernetes.Clientset {
	t.Helper()
	client, err := kubernetes.NewForConfig(config)
	must(t, err)
	return client
}

// A namespace that goes with the test.
func namespace(t *testing.T) string {
	t.Helper()
	name := strings.ToLower(regexp.MustCompile(`[^A-Za-z0-9]+`).ReplaceAllString(t.Name(), "-"))
	if len(name) > 63 {
		name = strings.Trim(name[:63], "-")
	}
	client := clientset(t, config)
	_, err := client.CoreV1().Namespaces().Create(t.Context(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	must(t, err)
	t.Cleanup(func() {
		_ = client.CoreV1().Namespaces().Delete(context.Background(), name, metav1.DeleteOptions{})
	})
	return name
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Waits until a level is reached.
func eventually(t *testing.T, what string, reached func(ctx context.Context) (bool, error)) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), 20*time.Millisecond, patience, true, reached)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}
