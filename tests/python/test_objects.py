"""Single objects: create, read, change, delete, with the generated client and the dynamic one."""

import pytest
from conftest import eventually
from kubernetes import client, dynamic
from kubernetes.client import ApiException

LABEL = "suite=python"


def config_map(name, data=None):
    return {"metadata": {"name": name, "labels": {"suite": "python"}}, "data": data or {}}


def refused(call, *arguments, **options):
    with pytest.raises(ApiException) as raised:
        call(*arguments, **options)
    return raised.value


def test_version_and_resources(api_client):
    version = client.VersionApi(api_client).get_code()
    assert version.git_version.endswith("+pintle") and version.minor == "36"
    groups = [group.name for group in client.ApisApi(api_client).get_api_versions().groups]
    assert {"apps", "rbac.authorization.k8s.io", "discovery.k8s.io"} <= set(groups)
    names = [resource.name for resource in client.CoreV1Api(api_client).get_api_resources().resources]
    assert {"pods", "pods/status", "services", "nodes"} <= set(names)


def test_life_of_an_object(api_client, namespace):
    core = client.CoreV1Api(api_client)
    created = core.create_namespaced_config_map(namespace, config_map("one", {"a": "1"}))
    assert created.metadata.uid and created.metadata.resource_version
    assert core.read_namespaced_config_map("one", namespace) == created

    changed = core.read_namespaced_config_map("one", namespace)
    changed.data = {"a": "2"}
    replaced = core.replace_namespaced_config_map("one", namespace, changed)
    assert replaced.metadata.resource_version != created.metadata.resource_version
    assert refused(core.replace_namespaced_config_map, "one", namespace, changed).status == 409

    merged = core.patch_namespaced_config_map("one", namespace, {"data": {"b": "3"}})
    assert merged.data == {"a": "2", "b": "3"}
    core.delete_namespaced_config_map("one", namespace)
    gone = refused(core.read_namespaced_config_map, "one", namespace)
    assert gone.status == 404 and 'configmaps \\"one\\" not found' in gone.body


def test_json_patch(api_client, namespace):
    core = client.CoreV1Api(api_client)
    core.create_namespaced_config_map(namespace, config_map("one", {"a": "1"}))
    operations = [{"op": "test", "path": "/data/a", "value": "1"}, {"op": "replace", "path": "/data/a", "value": "2"}]
    assert core.patch_namespaced_config_map("one", namespace, operations).data == {"a": "2"}
    assert refused(core.patch_namespaced_config_map, "one", namespace, operations).status == 422


def test_server_side_apply_by_the_dynamic_client(api_client, namespace):
    maps = dynamic.DynamicClient(api_client).resources.get(api_version="v1", kind="ConfigMap")
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", **config_map("one", {"a": "1"})}

    def apply(manager, **options):
        return maps.server_side_apply(body=manifest, namespace=namespace, field_manager=manager, **options)

    assert apply("one").data.to_dict() == {"a": "1"}
    manifest["data"] = {"a": "2"}
    with pytest.raises(dynamic.exceptions.ConflictError) as conflict:
        apply("two")
    assert "conflict with" in str(conflict.value.body)
    assert apply("two", force_conflicts=True).data.to_dict() == {"a": "2"}


def test_pages_and_selectors(api_client, namespace):
    core = client.CoreV1Api(api_client)
    for number in range(12):
        core.create_namespaced_config_map(namespace, config_map(f"map-{number:02}"))
    names, token = [], None
    while token != "":
        page = core.list_namespaced_config_map(namespace, label_selector=LABEL, limit=5, _continue=token or "")
        names += [item.metadata.name for item in page.items]
        token = page.metadata._continue or ""
    assert names == [f"map-{number:02}" for number in range(12)]
    one = core.list_namespaced_config_map(namespace, field_selector="metadata.name=map-03").items
    assert [item.metadata.name for item in one] == ["map-03"]
    core.delete_collection_namespaced_config_map(namespace, label_selector=LABEL)
    assert not core.list_namespaced_config_map(namespace, label_selector=LABEL).items


def test_dry_run_and_field_validation(api_client, namespace):
    core = client.CoreV1Api(api_client)
    core.create_namespaced_config_map(namespace, config_map("dry"), dry_run="All")
    assert refused(core.read_namespaced_config_map, "dry", namespace).status == 404
    wrong = {**config_map("wrong"), "dato": {}}
    complaint = refused(core.create_namespaced_config_map, namespace, wrong, field_validation="Strict")
    assert complaint.status == 400 and "unknown field" in complaint.body


def test_rights_of_a_service_account(api_client, namespace):
    core, rbac = client.CoreV1Api(api_client), client.RbacAuthorizationV1Api(api_client)
    core.create_namespaced_service_account(namespace, {"metadata": {"name": "robot"}})
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]
    rbac.create_namespaced_role(namespace, {"metadata": {"name": "reader"}, "rules": rules})
    subject = {"kind": "ServiceAccount", "name": "robot", "namespace": namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"}
    rbac.create_namespaced_role_binding(
        namespace, {"metadata": {"name": "reader"}, "subjects": [subject], "roleRef": role}
    )
    request = {"spec": {"expirationSeconds": 600, "audiences": []}}
    token = core.create_namespaced_service_account_token("robot", namespace, request).status.token

    configuration = client.Configuration()
    configuration.host = api_client.configuration.host
    configuration.ssl_ca_cert = api_client.configuration.ssl_ca_cert
    configuration.api_key = {"authorization": f"Bearer {token}"}
    robot = client.CoreV1Api(client.ApiClient(configuration))
    eventually(lambda: may_list(robot, namespace))
    assert refused(robot.list_namespaced_secret, namespace).status == 403
    assert refused(robot.list_config_map_for_all_namespaces).status == 403


def may_list(robot, namespace):
    try:
        return robot.list_namespaced_config_map(namespace) is not None
    except ApiException as refusal:
        assert refusal.status == 403, refusal
        return False
