package suite

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Every helm that PINTLE_HELM names, separated like PATH.
func helms(t *testing.T) []string {
	t.Helper()
	named := filepath.SplitList(os.Getenv("PINTLE_HELM"))
	if len(named) == 0 {
		t.Skip("PINTLE_HELM is unset")
	}
	return named
}

// A helm with a home of its own.
type helm struct {
	t      *testing.T
	binary string
	home   string
	ns     string
}

func (h helm) run(args ...string) string {
	h.t.Helper()
	output, err := h.try(args...)
	if err != nil {
		h.t.Fatalf("helm %s: %v\n%s", strings.Join(args, " "), err, output)
	}
	return output
}

func (h helm) try(args ...string) (string, error) {
	command := exec.CommandContext(h.t.Context(), h.binary, append(args, "--kubeconfig", kubeconfig, "--namespace", h.ns)...)
	command.Env = append(os.Environ(), "HOME="+h.home, "XDG_CACHE_HOME="+h.home, "XDG_CONFIG_HOME="+h.home, "XDG_DATA_HOME="+h.home)
	output, err := command.CombinedOutput()
	return string(output), err
}

// The chart is the one that `helm create` writes, which many real charts began as: a Deployment, a Service, an account,
// an autoscaler, an Ingress, a Route and a hook. To it come a definition in crds/ and a pre-upgrade hook.
func TestHelmInstallsUpgradesRollsBackAndRemoves(t *testing.T) {
	for _, binary := range helms(t) {
		version, err := exec.CommandContext(t.Context(), binary, "version", "--template", "{{.Version}}").Output()
		must(t, err)
		t.Run(strings.TrimSpace(string(version)), func(t *testing.T) {
			ns, ctx := namespace(t), t.Context()
			client := clientset(t, config)
			h := helm{t, binary, t.TempDir(), ns}
			chart := filepath.Join(h.home, "web")
			h.run("create", chart)
			extend(t, chart)

			h.run("install", "web", chart, "--wait", "--set", "replicaCount=2")
			deployments := client.AppsV1().Deployments(ns)
			image := func() (string, int32) {
				now, err := deployments.Get(ctx, "web", metav1.GetOptions{})
				must(t, err)
				return now.Spec.Template.Spec.Containers[0].Image, *now.Spec.Replicas
			}
			first, replicas := image()
			equal(t, "replicas", replicas, 2)
			if output, err := h.try("install", "web", chart); err == nil {
				t.Fatalf("a second install of the same name went well:\n%s", output)
			}

			h.run("upgrade", "web", chart, "--wait", "--set", "replicaCount=3,image.tag=other,autoscaling.enabled=false,ingress.enabled=true")
			second, replicas := image()
			equal(t, "replicas after the upgrade", replicas, 3)
			if second == first || !strings.HasSuffix(second, ":other") {
				t.Fatalf("the image was not changed: %s", second)
			}
			_, err := client.NetworkingV1().Ingresses(ns).Get(ctx, "web", metav1.GetOptions{})
			must(t, err)
			hook, err := client.CoreV1().ConfigMaps(ns).Get(ctx, "web-hook", metav1.GetOptions{})
			must(t, err)
			equal(t, "the hook ran", hook.Data["ran"], "yes")

			h.run("rollback", "web", "1", "--wait")
			third, replicas := image()
			equal(t, "image after the roll-back", third, first)
			equal(t, "replicas after the roll-back", replicas, 2)
			_, err = client.NetworkingV1().Ingresses(ns).Get(ctx, "web", metav1.GetOptions{})
			if !apierrors.IsNotFound(err) {
				t.Fatalf("the ingress is still there: %v", err)
			}
			var history []struct {
				Revision int    `json:"revision"`
				Status   string `json:"status"`
			}
			must(t, json.Unmarshal([]byte(h.run("history", "web", "--output", "json")), &history))
			equal(t, "revisions", len(history), 3)
			equal(t, "the last one", history[2].Status, "deployed")
			if status := h.run("status", "web"); !strings.Contains(status, "STATUS: deployed") {
				t.Fatalf("status: %s", status)
			}

			h.run("uninstall", "web", "--wait")
			eventually(t, "everything is gone", func(ctx context.Context) (bool, error) {
				_, err := deployments.Get(ctx, "web", metav1.GetOptions{})
				return apierrors.IsNotFound(err), nil
			})
		})
	}
}

// Adds a definition with an object of its kind, and a hook.
func extend(t *testing.T, chart string) {
	t.Helper()
	write := func(path, text string) {
		t.Helper()
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(chart, path)), 0o755))
		must(t, os.WriteFile(filepath.Join(chart, path), []byte(text), 0o644))
	}
	write("crds/settings.yaml", `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: settings.charts.pintle.dev}
spec:
  group: charts.pintle.dev
  scope: Namespaced
  names: {plural: settings, singular: setting, kind: Setting}
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {level: {type: integer}}}}}}
`)
	write("templates/setting.yaml", `apiVersion: charts.pintle.dev/v1
kind: Setting
metadata: {name: {{ .Release.Name }}}
spec: {level: {{ .Values.replicaCount }}}
`)
	write("templates/hook.yaml", `apiVersion: v1
kind: ConfigMap
metadata:
  name: web-hook
  annotations: {"helm.sh/hook": pre-upgrade, "helm.sh/hook-delete-policy": before-hook-creation}
data: {ran: "yes"}
`)
}
