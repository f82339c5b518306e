package suite

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/watch"
	applyappsv1 "k8s.io/client-go/applyconfigurations/apps/v1"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	applymetav1 "k8s.io/client-go/applyconfigurations/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/pager"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/ptr"
)

func deployment(name string, replicas int32) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
		Spec: appsv1.DeploymentSpec{
			Replicas: ptr.To(replicas),
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{Containers: []corev1.Container{{
					Name: "main", Image: "example/app:1",
					Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
					Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
						corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("16Mi"),
					}},
				}}},
			},
		},
	}
}

func configMap(name, value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"key": value}}
}

// Both wire forms that client-go knows for built-in kinds.
func forms() map[string]*rest.Config {
	return map[string]*rest.Config{"json": config, "protobuf": protobufConfig()}
}

func TestObjectsLiveAndDieInBothForms(t *testing.T) {
	for form, config := range forms() {
		t.Run(form, func(t *testing.T) {
			ns, ctx := namespace(t), t.Context()
			deployments := clientset(t, config).AppsV1().Deployments(ns)
			made, err := deployments.Create(ctx, deployment("web", 2), metav1.CreateOptions{})
			must(t, err)
			equal(t, "default of the strategy", made.Spec.Strategy.Type, appsv1.RollingUpdateDeploymentStrategyType)
			equal(t, "default of the policy", made.Spec.Template.Spec.RestartPolicy, corev1.RestartPolicyAlways)
			equal(t, "generation", made.Generation, int64(1))
			equal(t, "request", made.Spec.Template.Spec.Containers[0].Resources.Requests.Cpu().String(), "10m")

			eventually(t, "replicas are ready", func(ctx context.Context) (bool, error) {
				now, err := deployments.Get(ctx, "web", metav1.GetOptions{})
				return err == nil && now.Status.ReadyReplicas == 2, err
			})
			must(t, retry.RetryOnConflict(retry.DefaultRetry, func() error {
				now, err := deployments.Get(ctx, "web", metav1.GetOptions{})
				if err != nil {
					return err
				}
				now.Spec.Replicas = ptr.To[int32](3)
				_, err = deployments.Update(ctx, now, metav1.UpdateOptions{})
				return err
			}))
			must(t, retry.RetryOnConflict(retry.DefaultRetry, func() error {
				scale, err := deployments.GetScale(ctx, "web", metav1.GetOptions{})
				if err != nil {
					return err
				}
				equal(t, "scale", scale.Spec.Replicas, int32(3))
				scale.Spec.Replicas = 1
				_, err = deployments.UpdateScale(ctx, "web", scale, metav1.UpdateOptions{})
				return err
			}))
			patch := []byte(`{"spec":{"template":{"spec":{"containers":[{"name":"main","image":"example/app:2"}]}}}}`)
			patched, err := deployments.Patch(ctx, "web", types.StrategicMergePatchType, patch, metav1.PatchOptions{})
			must(t, err)
			equal(t, "patched image", patched.Spec.Template.Spec.Containers[0].Image, "example/app:2")
			equal(t, "port kept by the merge", patched.Spec.Template.Spec.Containers[0].Ports[0].ContainerPort, 8080)

			stale := made.DeepCopy()
			_, err = deployments.Update(ctx, stale, metav1.UpdateOptions{})
			if !apierrors.IsConflict(err) {
				t.Fatalf("an update of an old version: got %v, want a conflict", err)
			}
			list, err := deployments.List(ctx, metav1.ListOptions{LabelSelector: "app=web"})
			must(t, err)
			equal(t, "listed", len(list.Items), 1)
			must(t, deployments.Delete(ctx, "web", metav1.DeleteOptions{
				PropagationPolicy: ptr.To(metav1.DeletePropagationForeground),
			}))
			eventually(t, "it is gone", func(ctx context.Context) (bool, error) {
				_, err := deployments.Get(ctx, "web", metav1.GetOptions{})
				return apierrors.IsNotFound(err), nil
			})
		})
	}
}

func TestErrorsCarryReasonsAndCausesInBothForms(t *testing.T) {
	for form, config := range forms() {
		t.Run(form, func(t *testing.T) {
			ns, ctx := namespace(t), t.Context()
			client := clientset(t, config)
			_, err := client.CoreV1().Pods(ns).Get(ctx, "absent", metav1.GetOptions{})
			if !apierrors.IsNotFound(err) {
				t.Fatalf("an absent pod: %v", err)
			}
			broken := deployment("Web", -1)
			_, err = client.AppsV1().Deployments(ns).Create(ctx, broken, metav1.CreateOptions{})
			var status apierrors.APIStatus
			if !apierrors.IsInvalid(err) || !errors.As(err, &status) {
				t.Fatalf("a broken deployment: %v", err)
			}
			fields := map[string]bool{}
			for _, cause := range status.Status().Details.Causes {
				fields[cause.Field] = true
			}
			if !fields["metadata.name"] || !fields["spec.replicas"] {
				t.Fatalf("causes name the fields: %v", status.Status().Details.Causes)
			}
			_, err = client.CoreV1().ConfigMaps(ns).Create(ctx, configMap("twice", ""), metav1.CreateOptions{})
			must(t, err)
			_, err = client.CoreV1().ConfigMaps(ns).Create(ctx, configMap("twice", ""), metav1.CreateOptions{})
			if !apierrors.IsAlreadyExists(err) {
				t.Fatalf("a second one: %v", err)
			}
		})
	}
}

// Reflectors stream the initial list (WatchList) since client-go 0.35; the bookmark that ends it is what makes
// HasSynced true.
func TestInformersFollowInBothForms(t *testing.T) {
	for form, config := range forms() {
		t.Run(form, func(t *testing.T) {
			ns, ctx := namespace(t), t.Context()
			client := clientset(t, config)
			for at := range 20 {
				_, err := client.CoreV1().ConfigMaps(ns).Create(ctx, configMap(fmt.Sprintf("early-%d", at), "1"), metav1.CreateOptions{})
				must(t, err)
			}
			factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(ns))
			informer := factory.Core().V1().ConfigMaps().Informer()
			var updated, deleted atomic.Int32
			_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
				UpdateFunc: func(_, _ any) { updated.Add(1) },
				DeleteFunc: func(any) { deleted.Add(1) },
			})
			must(t, err)
			factory.Start(ctx.Done())
			if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
				t.Fatal("the informer did not sync")
			}
			lister := factory.Core().V1().ConfigMaps().Lister().ConfigMaps(ns)
			_, err = lister.Get("early-7")
			must(t, err)
			_, err = client.CoreV1().ConfigMaps(ns).Update(ctx, configMap("early-7", "2"), metav1.UpdateOptions{})
			must(t, err)
			must(t, client.CoreV1().ConfigMaps(ns).Delete(ctx, "early-8", metav1.DeleteOptions{}))
			eventually(t, "the informer saw both", func(context.Context) (bool, error) {
				now, err := lister.Get("early-7")
				_, gone := lister.Get("early-8")
				return err == nil && now.Data["key"] == "2" && apierrors.IsNotFound(gone) &&
					updated.Load() >= 1 && deleted.Load() == 1, nil
			})
		})
	}
}

func TestWatchListSendsInitialEventsAndABookmark(t *testing.T) {
	for form, config := range forms() {
		t.Run(form, func(t *testing.T) {
			ns, ctx := namespace(t), t.Context()
			client := clientset(t, config)
			_, err := client.CoreV1().ConfigMaps(ns).Create(ctx, configMap("one", "1"), metav1.CreateOptions{})
			must(t, err)
			stream, err := client.CoreV1().ConfigMaps(ns).Watch(ctx, metav1.ListOptions{
				SendInitialEvents: ptr.To(true), AllowWatchBookmarks: true,
				ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan,
				FieldSelector:        "metadata.name!=kube-root-ca.crt",
			})
			must(t, err)
			defer stream.Stop()
			first := next(t, stream)
			equal(t, "first event", first.Type, watch.Added)
			equal(t, "its object", first.Object.(*corev1.ConfigMap).Name, "one")
			bookmark := next(t, stream)
			equal(t, "second event", bookmark.Type, watch.Bookmark)
			marked := bookmark.Object.(*corev1.ConfigMap)
			equal(t, "end of the initial events", marked.Annotations[metav1.InitialEventsAnnotationKey], "true")
			_, err = client.CoreV1().ConfigMaps(ns).Create(ctx, configMap("two", "1"), metav1.CreateOptions{})
			must(t, err)
			later := next(t, stream)
			equal(t, "later event", later.Object.(*corev1.ConfigMap).Name, "two")
		})
	}
}

func next(t *testing.T, stream watch.Interface) watch.Event {
	t.Helper()
	select {
	case event, open := <-stream.ResultChan():
		if !open {
			t.Fatal("the watch ended")
		}
		return event
	case <-time.After(patience):
		t.Fatal("no event came")
	}
	panic("unreachable")
}

func TestMetadataClientSeesMetadataOnly(t *testing.T) {
	ns, ctx := namespace(t), t.Context()
	configMaps := corev1.SchemeGroupVersion.WithResource("configmaps")
	_, err := clientset(t, config).CoreV1().ConfigMaps(ns).Create(ctx, configMap("one", "1"), metav1.CreateOptions{})
	must(t, err)
	// Its own configuration asks for protobuf first.
	client, err := metadata.NewForConfig(config)
	must(t, err)
	one, err := client.Resource(configMaps).Namespace(ns).Get(ctx, "one", metav1.GetOptions{})
	must(t, err)
	equal(t, "name", one.Name, "one")
	factory := metadatainformer.NewFilteredSharedInformerFactory(client, 0, ns, nil)
	informer := factory.ForResource(configMaps).Informer()
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		t.Fatal("the metadata informer did not sync")
	}
	_, exists, err := informer.GetStore().GetByKey(ns + "/one")
	must(t, err)
	equal(t, "in the store", exists, true)
	must(t, client.Resource(configMaps).Namespace(ns).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{FieldSelector: "metadata.name=one"}))
	eventually(t, "the deletion arrives", func(context.Context) (bool, error) {
		_, exists, err := informer.GetStore().GetByKey(ns + "/one")
		return !exists, err
	})
}

func TestDynamicClientTakesAnyKind(t *testing.T) {
	ns, ctx := namespace(t), t.Context()
	client, err := dynamic.NewForConfig(config)
	must(t, err)
	services := client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "services"}).Namespace(ns)
	made, err := services.Create(ctx, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Service", "metadata": map[string]any{"name": "web"},
		"spec": map[string]any{"ports": []any{map[string]any{"port": int64(80)}}, "selector": map[string]any{"app": "web"}},
	}}, metav1.CreateOptions{FieldValidation: "Strict"})
	must(t, err)
	ip, found, err := unstructured.NestedString(made.Object, "spec", "clusterIP")
	must(t, err)
	if !found || ip == "" {
		t.Fatal("the service has no cluster IP")
	}
	made.Object["bogus"] = "x"
	_, err = services.Update(ctx, made, metav1.UpdateOptions{FieldValidation: "Strict"})
	if !apierrors.IsBadRequest(err) {
		t.Fatalf("an unknown field with strict validation: %v", err)
	}
}

func TestPagesAreConsistent(t *testing.T) {
	ns, ctx := namespace(t), t.Context()
	client := clientset(t, protobufConfig())
	for at := range 25 {
		_, err := client.CoreV1().Secrets(ns).Create(ctx, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("s-%02d", at)}, Data: map[string][]byte{"k": {0, 255, byte(at)}},
		}, metav1.CreateOptions{})
		must(t, err)
	}
	pages := 0
	lister := pager.New(func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		pages++
		return client.CoreV1().Secrets(ns).List(ctx, options)
	})
	lister.PageSize = 10
	names := []string{}
	must(t, lister.EachListItem(ctx, metav1.ListOptions{}, func(object runtime.Object) error {
		secret := object.(*corev1.Secret)
		names = append(names, secret.Name)
		if secret.Data["k"][1] != 255 {
			return fmt.Errorf("%s lost its bytes", secret.Name)
		}
		return nil
	}))
	equal(t, "pages", pages, 3)
	equal(t, "objects", len(names), 25)
	if !slices.IsSorted(names) {
		t.Fatalf("not in order: %v", names)
	}
}

func TestApplyConfigurationsOwnConflictAndLetGo(t *testing.T) {
	for form, config := range forms() {
		t.Run(form, func(t *testing.T) {
			ns, ctx := namespace(t), t.Context()
			deployments := clientset(t, config).AppsV1().Deployments(ns)
			labels := map[string]string{"app": "web"}
			wanted := func(image string, replicas *int32) *applyappsv1.DeploymentApplyConfiguration {
				spec := applyappsv1.DeploymentSpec().
					WithSelector(applymetav1.LabelSelector().WithMatchLabels(labels)).
					WithTemplate(applycorev1.PodTemplateSpec().WithLabels(labels).WithSpec(applycorev1.PodSpec().
						WithContainers(applycorev1.Container().WithName("main").WithImage(image))))
				spec.Replicas = replicas
				return applyappsv1.Deployment("web", ns).WithSpec(spec)
			}
			options := metav1.ApplyOptions{FieldManager: "first"}
			made, err := deployments.Apply(ctx, wanted("example/app:1", ptr.To[int32](2)), options)
			must(t, err)
			again, err := deployments.Apply(ctx, wanted("example/app:1", ptr.To[int32](2)), options)
			must(t, err)
			equal(t, "uid after the same apply", again.UID, made.UID)
			applied := 0
			for _, entry := range again.ManagedFields {
				if entry.Manager == "first" && entry.Operation == metav1.ManagedFieldsOperationApply {
					applied++
				}
			}
			equal(t, "entries of the manager", applied, 1)

			_, err = deployments.Apply(ctx, wanted("example/app:2", nil), metav1.ApplyOptions{FieldManager: "second"})
			if !apierrors.IsConflict(err) {
				t.Fatalf("another manager's image: got %v, want a conflict", err)
			}
			forced, err := deployments.Apply(ctx, wanted("example/app:2", nil), metav1.ApplyOptions{FieldManager: "second", Force: true})
			must(t, err)
			equal(t, "image", forced.Spec.Template.Spec.Containers[0].Image, "example/app:2")
			extracted, err := applyappsv1.ExtractDeployment(forced, "first")
			must(t, err)
			if extracted.Spec.Template.Spec.Containers[0].Image != nil {
				t.Fatal("the first manager still owns the image")
			}
			equal(t, "replicas of the first", *extracted.Spec.Replicas, 2)
			// Whoever stops to apply a field gives it up; nobody else has it, so the default is back.
			released, err := deployments.Apply(ctx, applyappsv1.Deployment("web", ns).WithSpec(applyappsv1.DeploymentSpec().
				WithSelector(applymetav1.LabelSelector().WithMatchLabels(labels))), metav1.ApplyOptions{FieldManager: "first", Force: true})
			must(t, err)
			equal(t, "replicas after", *released.Spec.Replicas, 1)
		})
	}
}

func TestOneLeaderAtATime(t *testing.T) {
	ns := namespace(t)
	client := clientset(t, protobufConfig())
	leaders := make(chan string, 2)
	run := func(ctx context.Context, identity string) <-chan struct{} {
		ended := make(chan struct{})
		lock := &resourcelock.LeaseLock{
			LeaseMeta: metav1.ObjectMeta{Namespace: ns, Name: "election"}, Client: client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: identity},
		}
		elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Lock: lock, ReleaseOnCancel: true, LeaseDuration: 3 * time.Second, RenewDeadline: 2 * time.Second, RetryPeriod: 200 * time.Millisecond,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(context.Context) { leaders <- identity },
				OnStoppedLeading: func() {},
			},
		})
		must(t, err)
		go func() { defer close(ended); elector.Run(ctx) }()
		return ended
	}
	leader := func() string {
		select {
		case identity := <-leaders:
			return identity
		case <-time.After(patience):
			t.Fatal("nobody leads")
			return ""
		}
	}
	first, stopFirst := context.WithCancel(t.Context())
	firstEnded := run(first, "first")
	equal(t, "leader", leader(), "first")
	second, stopSecond := context.WithCancel(t.Context())
	secondEnded := run(second, "second")
	stopFirst()
	<-firstEnded
	equal(t, "next leader", leader(), "second")
	stopSecond()
	<-secondEnded
}

func TestEvictedPodsAreReplaced(t *testing.T) {
	ns, ctx := namespace(t), t.Context()
	client := clientset(t, protobufConfig())
	_, err := client.AppsV1().Deployments(ns).Create(ctx, deployment("web", 2), metav1.CreateOptions{})
	must(t, err)
	running := func(ctx context.Context) ([]string, error) {
		pods, err := client.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{FieldSelector: "status.phase=Running"})
		names := []string{}
		for at := range pods.Items {
			names = append(names, pods.Items[at].Name)
		}
		return names, err
	}
	var evicted string
	eventually(t, "two pods run", func(ctx context.Context) (bool, error) {
		names, err := running(ctx)
		if err != nil || len(names) < 2 {
			return false, err
		}
		evicted = names[0]
		return true, nil
	})
	eviction := &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: evicted, Namespace: ns}}
	must(t, client.PolicyV1().Evictions(ns).Evict(ctx, eviction))
	eventually(t, "another one runs instead", func(ctx context.Context) (bool, error) {
		names, err := running(ctx)
		return len(names) == 2 && !slices.Contains(names, evicted), err
	})
}

func TestEvictionsKeepToBudgets(t *testing.T) {
	ns, ctx := namespace(t), t.Context()
	client := clientset(t, protobufConfig())
	_, err := client.AppsV1().Deployments(ns).Create(ctx, deployment("web", 2), metav1.CreateOptions{})
	must(t, err)
	needed := intstr.FromInt32(2)
	budget := &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: policyv1.PodDisruptionBudgetSpec{
			MinAvailable: &needed, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
		},
	}
	budgets := client.PolicyV1().PodDisruptionBudgets(ns)
	_, err = budgets.Create(ctx, budget, metav1.CreateOptions{})
	must(t, err)
	allows := func(healthy, allowed int32) func(context.Context) (bool, error) {
		return func(ctx context.Context) (bool, error) {
			budget, err := budgets.Get(ctx, "web", metav1.GetOptions{})
			return err == nil && budget.Status.CurrentHealthy == healthy && budget.Status.DisruptionsAllowed == allowed, err
		}
	}
	eventually(t, "both pods are needed", allows(2, 0))
	pods, err := client.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
	must(t, err)
	evict := func() error {
		eviction := &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: pods.Items[0].Name, Namespace: ns}}
		return client.PolicyV1().Evictions(ns).Evict(ctx, eviction)
	}
	refused := evict()
	equal(t, "refused", apierrors.IsTooManyRequests(refused), true)
	cause, _ := apierrors.StatusCause(refused, policyv1.DisruptionBudgetCause)
	equal(t, "why", cause.Message, "The disruption budget web needs 2 healthy pods and has 2 currently")
	scale := []byte(`{"spec":{"replicas":3}}`)
	_, err = client.AppsV1().Deployments(ns).Patch(ctx, "web", types.MergePatchType, scale, metav1.PatchOptions{}, "scale")
	must(t, err)
	eventually(t, "one may go", allows(3, 1))
	must(t, evict())
}

func TestTokensAndReviews(t *testing.T) {
	ns, ctx := namespace(t), t.Context()
	client := clientset(t, protobufConfig())
	_, err := client.CoreV1().ServiceAccounts(ns).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "worker"}}, metav1.CreateOptions{})
	must(t, err)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To[int64](600)}}
	token, err := client.CoreV1().ServiceAccounts(ns).CreateToken(ctx, "worker", request, metav1.CreateOptions{})
	must(t, err)
	own := rest.AnonymousClientConfig(config)
	own.BearerToken = token.Status.Token
	worker, err := kubernetes.NewForConfig(own)
	must(t, err)
	self, err := worker.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	must(t, err)
	equal(t, "who", self.Status.UserInfo.Username, "system:serviceaccount:"+ns+":worker")
	may := func() bool {
		review, err := worker.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
			Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
				Namespace: ns, Verb: "list", Resource: "pods",
			}},
		}, metav1.CreateOptions{})
		must(t, err)
		return review.Status.Allowed
	}
	equal(t, "before the binding", may(), false)
	_, err = worker.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
	if !apierrors.IsForbidden(err) {
		t.Fatalf("a stranger lists pods: %v", err)
	}
	binding := bindingOf(ns, "worker", "view")
	_, err = client.RbacV1().RoleBindings(ns).Create(ctx, binding, metav1.CreateOptions{})
	must(t, err)
	equal(t, "after the binding", may(), true)
	_, err = worker.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
	must(t, err)
}

func TestEveryResourceIsDiscovered(t *testing.T) {
	client := clientset(t, config)
	_, lists, err := client.Discovery().ServerGroupsAndResources()
	must(t, err)
	count := 0
	for _, list := range lists {
		for _, found := range list.APIResources {
			if found.Name == "deployments" && !slices.Contains(found.Verbs, "watch") {
				t.Fatalf("deployments cannot be watched: %v", found.Verbs)
			}
			count++
		}
	}
	if count < 100 {
		t.Fatalf("only %d resources and subresources were discovered", count)
	}
	document, err := client.Discovery().OpenAPISchema()
	must(t, err)
	equal(t, "openapi v2 in protobuf", document.Swagger, "2.0")
	paths, err := client.Discovery().OpenAPIV3().Paths()
	must(t, err)
	if _, there := paths["apis/apps/v1"]; !there {
		t.Fatal("openapi v3 lacks apps/v1")
	}
}

// Gives a service account a cluster role in its namespace.
func bindingOf(namespace, account, role string) *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: account + "-" + role},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: account}},
	}
}
