package suite

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

var backupVersion = schema.GroupVersion{Group: "suite.pintle.dev", Version: "v1"}

const finalizer = "suite.pintle.dev/backup"

// Backup is the operator's own kind; testdata/backups.yaml defines it.
type Backup struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              BackupSpec   `json:"spec"`
	Status            BackupStatus `json:"status,omitempty"`
}

type BackupSpec struct {
	Source  string         `json:"source"`
	Copies  *int32         `json:"copies,omitempty"`
	Targets []BackupTarget `json:"targets,omitempty"`
}

type BackupTarget struct {
	Name string `json:"name"`
	Keep *int64 `json:"keep,omitempty"`
}

type BackupStatus struct {
	Phase              string `json:"phase,omitempty"`
	Copies             int32  `json:"copies,omitempty"`
	ObservedGeneration int64  `json:"observedGeneration,omitempty"`
}

type BackupList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Backup `json:"items"`
}

func (b *Backup) DeepCopyObject() runtime.Object {
	own := *b
	own.ObjectMeta = *b.ObjectMeta.DeepCopy()
	if b.Spec.Copies != nil {
		own.Spec.Copies = ptr.To(*b.Spec.Copies)
	}
	own.Spec.Targets = nil
	for _, target := range b.Spec.Targets {
		if target.Keep != nil {
			target.Keep = ptr.To(*target.Keep)
		}
		own.Spec.Targets = append(own.Spec.Targets, target)
	}
	return &own
}

func (l *BackupList) DeepCopyObject() runtime.Object {
	own := *l
	own.ListMeta = *l.ListMeta.DeepCopy()
	own.Items = nil
	for at := range l.Items {
		own.Items = append(own.Items, *l.Items[at].DeepCopyObject().(*Backup))
	}
	return &own
}

func operatorScheme(t *testing.T) *runtime.Scheme {
	t.Helper()
	scheme := runtime.NewScheme()
	must(t, clientgoscheme.AddToScheme(scheme))
	scheme.AddKnownTypes(backupVersion, &Backup{}, &BackupList{})
	metav1.AddToGroupVersion(scheme, backupVersion)
	return scheme
}

// Keeps one ConfigMap per copy that a Backup asks for, and says so in its status.
type reconciler struct{ client.Client }

func (r *reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	backup := &Backup{}
	if err := r.Get(ctx, request.NamespacedName, backup); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !backup.DeletionTimestamp.IsZero() {
		if controllerutil.RemoveFinalizer(backup, finalizer) {
			return ctrl.Result{}, r.Update(ctx, backup)
		}
		return ctrl.Result{}, nil
	}
	if controllerutil.AddFinalizer(backup, finalizer) {
		return ctrl.Result{}, r.Update(ctx, backup)
	}
	for copy := range *backup.Spec.Copies {
		part := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
			Namespace: backup.Namespace, Name: fmt.Sprintf("%s-%d", backup.Name, copy),
		}}
		_, err := controllerutil.CreateOrUpdate(ctx, r.Client, part, func() error {
			part.Data = map[string]string{"source": backup.Spec.Source}
			return controllerutil.SetControllerReference(backup, part, r.Scheme())
		})
		if err != nil {
			return ctrl.Result{}, err
		}
	}
	wanted := BackupStatus{Phase: "Done", Copies: *backup.Spec.Copies, ObservedGeneration: backup.Generation}
	if backup.Status == wanted {
		return ctrl.Result{}, nil
	}
	backup.Status = wanted
	return ctrl.Result{}, r.Status().Update(ctx, backup)
}

func TestAnOperatorRunsOnItsOwnKind(t *testing.T) {
	log.SetLogger(logr.Discard())
	ns, ctx := namespace(t), t.Context()
	_, err := envtest.InstallCRDs(config, envtest.CRDInstallOptions{Paths: []string{"testdata/backups.yaml"}, ErrorIfPathMissing: true})
	must(t, err)
	manager, err := ctrl.NewManager(config, ctrl.Options{
		Scheme: operatorScheme(t), Metrics: server.Options{BindAddress: "0"},
		LeaderElection: true, LeaderElectionID: "backups", LeaderElectionNamespace: ns,
	})
	must(t, err)
	must(t, ctrl.NewControllerManagedBy(manager).For(&Backup{}).Owns(&corev1.ConfigMap{}).Complete(&reconciler{manager.GetClient()}))
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- manager.Start(running) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()

	// Past the cache, so that every answer is the server's.
	direct, err := client.New(config, client.Options{Scheme: operatorScheme(t)})
	must(t, err)
	backup := &Backup{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "daily"}, Spec: BackupSpec{
		Source: "db", Targets: []BackupTarget{{Name: "near"}},
	}}
	must(t, direct.Create(ctx, backup))
	equal(t, "default of the schema", *backup.Spec.Copies, 2)
	equal(t, "default inside a list", *backup.Spec.Targets[0].Keep, 7)
	equal(t, "generation", backup.Generation, int64(1))
	key := client.ObjectKeyFromObject(backup)
	eventually(t, "the operator is done", func(ctx context.Context) (bool, error) {
		err := direct.Get(ctx, key, backup)
		return err == nil && backup.Status.Copies == 2, err
	})
	parts := &corev1.ConfigMapList{}
	count := func(ctx context.Context) int {
		must(t, direct.List(ctx, parts, client.InNamespace(ns)))
		owned := 0
		for _, part := range parts.Items {
			if metav1.IsControlledBy(&part, backup) {
				owned++
			}
		}
		return owned
	}
	equal(t, "parts", count(ctx), 2)

	// What it owns comes back, since the operator watches it.
	must(t, direct.Delete(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "daily-1"}}))
	eventually(t, "the part is back", func(ctx context.Context) (bool, error) { return count(ctx) == 2, nil })

	grown := client.MergeFrom(backup.DeepCopyObject().(*Backup))
	backup.Spec.Copies = ptr.To[int32](3)
	must(t, direct.Patch(ctx, backup, grown))
	eventually(t, "it grew", func(ctx context.Context) (bool, error) { return count(ctx) == 3, nil })
	refused(t, "a transition rule", direct.Patch(ctx, &Backup{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "daily"}},
		client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"copies":1}}`))), "copies may only grow")
	refused(t, "a rule", direct.Create(ctx, &Backup{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "none"},
		Spec: BackupSpec{Source: "nowhere"}}), "nowhere cannot be backed up")
	refused(t, "a limit", direct.Create(ctx, &Backup{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "many"},
		Spec: BackupSpec{Source: "db", Copies: ptr.To[int32](10)}}), "should be less than or equal to 9")

	selected := &BackupList{}
	must(t, direct.List(ctx, selected, client.InNamespace(ns), client.MatchingFields{"spec.source": "db"}))
	equal(t, "selected by a field of the schema", len(selected.Items), 1)
	must(t, direct.List(ctx, selected, client.InNamespace(ns), client.MatchingFields{"spec.source": "other"}))
	equal(t, "not selected", len(selected.Items), 0)

	applied := &Backup{TypeMeta: metav1.TypeMeta{APIVersion: backupVersion.String(), Kind: "Backup"},
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "daily"},
		Spec:       BackupSpec{Source: "db", Targets: []BackupTarget{{Name: "far"}}}}
	must(t, direct.Patch(ctx, applied, client.Apply, client.FieldOwner("second"))) //nolint:staticcheck // the untyped form
	equal(t, "targets merge by their key", len(applied.Spec.Targets), 2)

	must(t, direct.Delete(ctx, backup))
	eventually(t, "it and its parts are gone", func(ctx context.Context) (bool, error) {
		err := direct.Get(ctx, key, &Backup{})
		return apierrors.IsNotFound(err) && count(ctx) == 0, nil
	})
}

func refused(t *testing.T, what string, err error, text string) {
	t.Helper()
	if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), text) {
		t.Fatalf("%s: got %v, want a refusal that says %q", what, err, text)
	}
}
