"""An application that nobody here wrote, and watching it."""

import threading

from conftest import PATIENCE_SECONDS, SIM_NODES, eventually
from kubernetes import client, utils, watch

DEPLOYMENTS = 12


def test_an_application_comes_up_and_goes(api_client, testdata):
    manifests = str(testdata / "manifests" / "online-boutique.yaml")
    utils.create_from_yaml(api_client, manifests)
    apps, core = client.AppsV1Api(api_client), client.CoreV1Api(api_client)
    eventually(lambda: available(apps) == DEPLOYMENTS)
    pods = core.list_namespaced_pod("default").items
    assert len(pods) == DEPLOYMENTS and all(pod.status.phase == "Running" for pod in pods)
    assert len({pod.spec.node_name for pod in pods}) == SIM_NODES
    assert len({pod.status.pod_ip for pod in pods}) == DEPLOYMENTS

    apps.patch_namespaced_deployment_scale("frontend", "default", {"spec": {"replicas": 4}})
    eventually(lambda: apps.read_namespaced_deployment("frontend", "default").status.ready_replicas == 4)
    container = {"name": "server", "image": "registry.example/frontend:2"}
    rollout = {"spec": {"template": {"spec": {"containers": [container]}}}}
    apps.patch_namespaced_deployment("frontend", "default", rollout)
    eventually(lambda: images(core, "app=frontend") == ["registry.example/frontend:2"] * 4)

    for deployment in apps.list_namespaced_deployment("default").items:
        apps.delete_namespaced_deployment(deployment.metadata.name, "default")
    eventually(lambda: not core.list_namespaced_pod("default").items)
    eventually(lambda: not apps.list_namespaced_replica_set("default").items)


def available(apps):
    deployments = apps.list_namespaced_deployment("default").items
    return sum(1 for one in deployments if one.status.available_replicas == one.spec.replicas)


def images(core, selector):
    pods = core.list_namespaced_pod("default", label_selector=selector).items
    return [pod.spec.containers[0].image for pod in pods if not pod.metadata.deletion_timestamp]


def test_a_watch_sees_a_life_in_order(api_client, namespace):
    core = client.CoreV1Api(api_client)
    version = core.list_namespaced_config_map(namespace).metadata.resource_version

    def live():
        core.create_namespaced_config_map(namespace, {"metadata": {"name": "one"}})
        core.patch_namespaced_config_map("one", namespace, {"data": {"a": "1"}})
        core.delete_namespaced_config_map("one", namespace)

    living = threading.Thread(target=live)
    living.start()
    seen, stream = [], watch.Watch()
    arguments = {"resource_version": version, "timeout_seconds": PATIENCE_SECONDS}
    for event in stream.stream(core.list_namespaced_config_map, namespace, **arguments):
        if event["object"].metadata.name == "one":
            seen.append(event["type"])
        if seen and seen[-1] == "DELETED":
            stream.stop()
    living.join()
    assert seen == ["ADDED", "MODIFIED", "DELETED"]


def test_a_watch_ends_when_its_time_is_over(api_client, namespace):
    core = client.CoreV1Api(api_client)
    events = list(watch.Watch().stream(core.list_namespaced_secret, namespace, timeout_seconds=1))
    assert events == []
