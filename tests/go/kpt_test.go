package suite

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const kptPackage = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: NAMESPACE}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: main, image: "example/app:1"}]}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: tiles.kpt.example.com}
spec:
  group: kpt.example.com
  scope: Namespaced
  names: {plural: tiles, singular: tile, kind: Tile}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {size: {type: integer}}}}}}
---
apiVersion: kpt.example.com/v1
kind: Tile
metadata: {name: blue, namespace: NAMESPACE}
spec: {size: 1}
`

const kptLater = `---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: NAMESPACE}
data: {mode: fast}
`

// A package with a definition and an object of it is applied by server-side apply, waited for, changed, pruned and
// removed; kpt keeps what it applied in a custom resource of its own. PINTLE_KPT names the binary.
func TestKptAppliesPrunesAndDestroys(t *testing.T) {
	binary := os.Getenv("PINTLE_KPT")
	if binary == "" {
		t.Skip("PINTLE_KPT is unset")
	}
	ns, ctx, folder := namespace(t), t.Context(), t.TempDir()
	client := clientset(t, config)
	kpt := func(args ...string) string {
		t.Helper()
		command := exec.CommandContext(ctx, binary, append([]string{"live"}, args...)...)
		command.Env = append(os.Environ(), "HOME="+folder, "KUBECONFIG="+kubeconfig)
		output, err := command.CombinedOutput()
		if err != nil {
			t.Fatalf("kpt live %s: %v\n%s", strings.Join(args, " "), err, output)
		}
		if strings.Contains(string(output), "protocol error") {
			t.Fatalf("kpt live %s breaks the protocol:\n%s", strings.Join(args, " "), output)
		}
		return string(output)
	}
	source := filepath.Join(folder, "package")
	must(t, os.Mkdir(source, 0o755))
	write := func(name, text string) {
		t.Helper()
		text = strings.ReplaceAll(text, "NAMESPACE", ns)
		must(t, os.WriteFile(filepath.Join(source, name), []byte(text), 0o644))
	}
	apply := func(serverSide bool) string {
		t.Helper()
		args := []string{"apply", source, "--output=events", "--reconcile-timeout=60s"}
		if serverSide {
			args = append(args, "--server-side")
		}
		return kpt(args...)
	}
	contains := func(output, wanted string) {
		t.Helper()
		if !strings.Contains(output, wanted) {
			t.Fatalf("%q is not in\n%s", wanted, output)
		}
	}

	write("Kptfile", "apiVersion: kpt.dev/v1\nkind: Kptfile\nmetadata: {name: package}\n")
	write("app.yaml", kptPackage)
	kpt("install-resource-group")
	kpt("init", source, "--namespace", ns)
	first := apply(false)
	contains(first, "apply result: 3 attempted, 3 successful")
	contains(first, "reconcile result: 3 attempted, 3 successful, 0 skipped, 0 failed, 0 timed out")

	write("later.yaml", kptLater)
	contains(apply(true), "apply result: 4 attempted, 4 successful")
	contains(kpt("status", source, "--output=events"), "is Current: Deployment is available. Replicas: 2")

	must(t, os.Remove(filepath.Join(source, "later.yaml")))
	contains(apply(true), "prune result: 1 attempted, 1 successful")
	_, err := client.CoreV1().ConfigMaps(ns).Get(ctx, "settings", metav1.GetOptions{})
	equal(t, "pruned", apierrors.IsNotFound(err), true)

	contains(kpt("destroy", source, "--output=events"), "delete result: 3 attempted, 3 successful")
	_, err = client.AppsV1().Deployments(ns).Get(ctx, "web", metav1.GetOptions{})
	equal(t, "destroyed", apierrors.IsNotFound(err), true)
}
