"""A `pintle up` of its own for every test module, and clients for it."""

import os
import pathlib
import signal
import subprocess
import time

import kubernetes
import pytest

SIM_NODES = 3
PATIENCE_SECONDS = 60


def pytest_report_header():
    return f"pintle: {os.environ.get('PINTLE_BINARY', 'PINTLE_BINARY is unset')}"


@pytest.fixture(scope="session")
def testdata():
    named = os.environ.get("PINTLE_TESTDATA")
    if not named:
        pytest.skip("PINTLE_TESTDATA is unset")
    return pathlib.Path(named)


@pytest.fixture(scope="module")
def api_client(tmp_path_factory):
    binary = os.environ.get("PINTLE_BINARY")
    if not binary:
        pytest.skip("PINTLE_BINARY is unset")
    folder = tmp_path_factory.mktemp("pintle")
    kubeconfig, log = folder / "kubeconfig", folder / "log"
    arguments = ["up", "--listen", "127.0.0.1:0", "--data-dir", folder / "data"]
    arguments += ["--kubeconfig", kubeconfig, "--sim-nodes", str(SIM_NODES)]
    with open(log, "wb") as said:
        server = subprocess.Popen([binary, *arguments], stdin=subprocess.DEVNULL, stdout=said, stderr=said)
    try:
        eventually(lambda: server.poll() is not None or kubeconfig.exists())
        assert server.poll() is None, f"the server ended: {log.read_text()}"
        client = kubernetes.config.new_client_from_config(str(kubeconfig))
        eventually(lambda: is_ready(client))
        yield client
        server.send_signal(signal.SIGTERM)
        assert server.wait(PATIENCE_SECONDS) == 0, log.read_text()
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def namespace(api_client, request):
    """A namespace that goes with the test."""
    core = kubernetes.client.CoreV1Api(api_client)
    name = request.node.name.replace("_", "-").split("[")[0][:63].rstrip("-")
    core.create_namespace({"metadata": {"name": name}})
    yield name
    core.delete_namespace(name)


def is_ready(client):
    try:
        return client.call_api("/readyz", "GET", auth_settings=["BearerToken"], response_type="str")[1] == 200
    except kubernetes.client.ApiException:
        return False


def eventually(look):
    """Looks until `look` is true; its last answer is what is returned."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        seen = look()
        if seen:
            return seen
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS} s"
        time.sleep(0.02)
