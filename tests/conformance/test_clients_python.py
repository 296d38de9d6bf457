"""The official Python client: typed, dynamic, watching, and electing a leader.

It is synchronous, so it runs in threads and processes of its own.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client as k8s
from kubernetes import config, dynamic, watch

from beamlit_operator.kube import HttpClient, Resource

CANDIDATE = """
import sys
from kubernetes import config
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock
kubeconfig, namespace, name = sys.argv[1:]
config.load_kube_config(kubeconfig)
lock = LeaseLock("leader", namespace, name)
settings = electionconfig.Config(
    lock, lease_duration=6, renew_deadline=5, retry_period=1,
    onstarted_leading=lambda: print("leads", flush=True), onstopped_leading=None,
)
leaderelection.LeaderElection(settings).run()
"""


@pytest.fixture
def api(kubeconfig: Path) -> k8s.ApiClient:
    with config.new_client_from_config(str(kubeconfig)) as found:
        yield found


async def test_typed_objects_make_the_round_trip(api: k8s.ApiClient, namespace: str) -> None:
    def use() -> None:
        core = k8s.CoreV1Api(api)
        meta = k8s.V1ObjectMeta(name="one", labels={"a": "b"})
        core.create_namespaced_config_map(namespace, k8s.V1ConfigMap(metadata=meta, data={"x": ""}))
        core.patch_namespaced_config_map("one", namespace, {"data": {"y": "2"}})
        found = core.read_namespaced_config_map("one", namespace)
        assert found.data == {"x": "", "y": "2"}
        assert found.metadata.creation_timestamp.tzinfo is not None
        listed = core.list_namespaced_config_map(namespace, label_selector="a=b", limit=1)
        assert [item.metadata.name for item in listed.items] == ["one"]
        found.data = {"z": "3"}
        replaced = core.replace_namespaced_config_map("one", namespace, found)
        with pytest.raises(k8s.ApiException) as stale:
            core.replace_namespaced_config_map("one", namespace, found)
        assert stale.value.status == 409
        assert replaced.data == {"z": "3"}
        core.delete_namespaced_config_map("one", namespace)
        with pytest.raises(k8s.ApiException) as gone:
            core.read_namespaced_config_map("one", namespace)
        assert gone.value.status == 404

        apps = k8s.AppsV1Api(api)
        container = k8s.V1Container(name="main", image="example.com/none:1")
        labels = {"app": "web"}
        template = k8s.V1PodTemplateSpec(
            metadata=k8s.V1ObjectMeta(labels=labels), spec=k8s.V1PodSpec(containers=[container])
        )
        spec = k8s.V1DeploymentSpec(
            replicas=0, selector=k8s.V1LabelSelector(match_labels=labels), template=template
        )
        body = k8s.V1Deployment(metadata=k8s.V1ObjectMeta(name="web"), spec=spec)
        made = apps.create_namespaced_deployment(namespace, body)
        assert made.spec.strategy.rolling_update.max_surge == "25%"
        scale = apps.read_namespaced_deployment_scale("web", namespace)
        # A zero does not travel: the field is omitempty.
        assert (scale.spec.replicas or 0, scale.status.selector) == (0, "app=web")

    await asyncio.to_thread(use)


async def test_the_dynamic_client_finds_and_applies_custom_resources(
    api: k8s.ApiClient, namespace: str, widgets: Resource
) -> None:
    def use() -> None:
        found = dynamic.DynamicClient(api).resources.get(
            api_version=widgets.api_version, kind=widgets.kind
        )
        body = {
            "apiVersion": widgets.api_version,
            "kind": widgets.kind,
            "metadata": {"name": "one", "namespace": namespace},
            "spec": {"size": 3},
        }
        made = found.server_side_apply(body, name="one", namespace=namespace, field_manager="me")
        assert (made.spec.size, made.spec.color) == (3, "red")
        assert made.metadata.managedFields[0].manager == "me"
        listed = found.get(namespace=namespace)
        assert [item.metadata.name for item in listed.items] == ["one"]
        status = {"status": {"message": "painted"}, "metadata": {"name": "one"}}
        kind = "application/merge-patch+json"
        found.status.patch(body=status, name="one", namespace=namespace, content_type=kind)
        assert found.get(name="one", namespace=namespace).status.message == "painted"
        found.delete(name="one", namespace=namespace)

    await asyncio.to_thread(use)


async def test_a_watch_gives_typed_events_from_a_list_on(
    api: k8s.ApiClient, client: HttpClient, namespace: str
) -> None:
    def use() -> list[Any]:
        core = k8s.CoreV1Api(api)
        start = core.list_namespaced_config_map(namespace).metadata.resource_version
        for value in ("1", "2"):
            body = {"metadata": {"name": f"c{value}"}, "data": {"v": value}}
            core.create_namespaced_config_map(namespace, body)
        core.patch_namespaced_config_map("c1", namespace, {"data": {"v": "3"}})
        core.delete_namespaced_config_map("c2", namespace)
        seen = []
        stream = watch.Watch()
        for event in stream.stream(
            core.list_namespaced_config_map,
            namespace,
            resource_version=start,
            timeout_seconds=60,
            field_selector="metadata.name!=kube-root-ca.crt",
        ):
            seen.append((event["type"], event["object"].metadata.name, event["object"].data["v"]))
            if len(seen) == 4:
                stream.stop()
        return seen

    assert await asyncio.to_thread(use) == [
        ("ADDED", "c1", "1"),
        ("ADDED", "c2", "2"),
        ("MODIFIED", "c1", "3"),
        ("DELETED", "c2", "2"),
    ]


async def test_one_leader_is_elected_and_followed_when_it_dies(
    kubeconfig: Path, namespace: str
) -> None:
    def candidate(name: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", CANDIDATE, str(kubeconfig), namespace, name]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def leads(process: subprocess.Popen[str]) -> bool:
        assert process.stdout is not None
        return process.stdout.readline() == "leads\n"

    with candidate("first") as first:
        try:
            assert await asyncio.wait_for(asyncio.to_thread(leads, first), 60)
            with candidate("second") as second:
                try:
                    following = asyncio.create_task(asyncio.to_thread(leads, second))
                    waiting, _ = await asyncio.wait({following}, timeout=2)
                    assert not waiting, "two lead at once"
                    first.kill()
                    assert await asyncio.wait_for(following, 60)
                finally:
                    second.kill()
        finally:
            first.kill()
