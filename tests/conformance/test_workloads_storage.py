"""What the controllers and the scheduler make of claims and volumes that were made by hand.

No pod's output is read: whether something is mounted is for a kubelet to show, and the suite runs
against control planes whose kubelet mounts nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from beamlit_operator.kube import EVENTS, NODES, PODS, ApiError, HttpClient, Json, Resource

from .storage import CLAIMS, CLASSES, VOLUMES, claim, host_path, local, only_on, storage_class
from .workloads import Workspace


@pytest.fixture(scope="session")
def kubeconfig(cluster_kubeconfig: Path) -> Path:
    return cluster_kubeconfig


@dataclass
class Store:
    """A class of its own, its volumes, and claims in one namespace."""

    workspace: Workspace
    kind: str
    made: list[tuple[Resource, str]] = field(default_factory=list)

    @property
    def client(self) -> HttpClient:
        return self.workspace.client

    async def volume(self, body: Json) -> str:
        """Creates a volume of the class; its name."""
        body["spec"].setdefault("storageClassName", self.kind)
        name = body["metadata"]["name"]
        self.made.append((VOLUMES, name))
        await self.client.create(VOLUMES, body)
        return str(name)

    async def claim(self, body: Json) -> Json:
        """Creates a claim of the class."""
        body["spec"].setdefault("storageClassName", self.kind)
        return await self.client.create(CLAIMS, body, self.workspace.namespace)

    async def get(self, resource: Resource, name: str) -> Json | None:
        namespace = self.workspace.namespace if resource.namespaced else None
        try:
            return await self.client.get(resource, name, namespace)
        except ApiError as error:
            if error.not_found:
                return None
            raise

    async def until(
        self, resource: Resource, name: str, what: str, check: Callable[[Json | None], Any]
    ) -> Any:
        async def holds() -> Any:
            found = await self.get(resource, name)
            return (found or True) if check(found) else None

        holds.__qualname__ = f"{resource.plural} {name}: {what}"
        return await self.workspace.until(holds)

    async def until_phase(self, resource: Resource, name: str, phase: str) -> Json:
        def is_so(item: Json | None) -> bool:
            return item is not None and (item.get("status") or {}).get("phase") == phase

        return await self.until(resource, name, phase, is_so)

    async def until_gone(self, resource: Resource, name: str) -> None:
        await self.until(resource, name, "gone", lambda item: item is None)

    async def until_told(self, name: str, reason: str) -> str:
        """The message of the first event of this reason about the object."""

        async def told() -> Any:
            for event in (await self.client.list(EVENTS, self.workspace.namespace)).items:
                if event["involvedObject"]["name"] == name and event["reason"] == reason:
                    return event["message"]
            return None

        told.__qualname__ = f"{name} is told {reason}"
        return str(await self.workspace.until(told))

    def using(self, pod: str, *claims: str, **spec: Any) -> Json:
        """A pod that mounts these claims."""
        mounts = [{"name": name, "mountPath": f"/mnt/{name}"} for name in claims]
        volumes = [{"name": n, "persistentVolumeClaim": {"claimName": n}} for n in claims]
        return self.workspace.pod(pod, main={"volumeMounts": mounts}, volumes=volumes, **spec)

    async def refusal(self, pod: str, part: str) -> str:
        """Why the scheduler leaves the pod pending, once it says this."""

        async def refused() -> Any:
            conditions = (await self.workspace.get(pod))["status"].get("conditions") or ()
            for each in conditions:
                if each["type"] == "PodScheduled" and each["status"] == "False":
                    message = str(each["message"]).split(" preemption:")[0]
                    return message if part in message else None
            return None

        refused.__qualname__ = f"{pod} is pending: {part}"
        return str(await self.workspace.until(refused))


@pytest.fixture
async def store(workspace: Workspace) -> AsyncIterator[Store]:
    body = storage_class()
    found = Store(workspace, body["metadata"]["name"])
    await found.client.create(CLASSES, body)
    yield found
    for item in (await found.client.list(PODS, workspace.namespace)).items:
        with contextlib.suppress(ApiError):
            await found.client.delete(
                PODS, item["metadata"]["name"], workspace.namespace, grace_period_seconds=0
            )
    for item in (await found.client.list(CLAIMS, workspace.namespace)).items:
        with contextlib.suppress(ApiError):
            await found.client.delete(CLAIMS, item["metadata"]["name"], workspace.namespace)
    for resource, name in [*found.made, (CLASSES, found.kind)]:
        with contextlib.suppress(ApiError):
            await found.client.delete(resource, name)


async def test_a_claim_gets_the_smallest_volume_that_does(store: Store) -> None:
    await store.volume(host_path("", "9Mi"))
    fits = await store.volume(host_path("", "3Mi"))
    await store.volume(host_path("", "1Mi"))
    for name in [name for _, name in store.made]:
        await store.until_phase(VOLUMES, name, "Available")
    made = await store.claim(claim("a", "2Mi"))
    bound = await store.until_phase(CLAIMS, "a", "Bound")
    assert bound["spec"]["volumeName"] == fits
    assert bound["status"]["capacity"] == {"storage": "3Mi"}
    assert bound["status"]["accessModes"] == ["ReadWriteOnce"]
    assert bound["metadata"]["annotations"]["pv.kubernetes.io/bind-completed"] == "yes"
    volume = await store.until_phase(VOLUMES, fits, "Bound")
    reference = volume["spec"]["claimRef"]
    assert (reference["name"], reference["uid"]) == ("a", made["metadata"]["uid"])


async def test_a_claim_waits_for_a_volume_with_its_modes_and_labels(store: Store) -> None:
    await store.claim(claim("a", accessModes=["ReadWriteMany"]))
    selector = {"matchLabels": {"disk": "fast"}}
    await store.claim(claim("b", selector=selector))
    assert await store.until_told("a", "ProvisioningFailed")
    wide = await store.volume(host_path(accessModes=["ReadWriteOnce", "ReadWriteMany"]))
    bound = await store.until_phase(CLAIMS, "a", "Bound")
    assert bound["spec"]["volumeName"] == wide
    await store.volume(host_path())
    body = host_path()
    body["metadata"]["labels"] = {"disk": "fast"}
    fast = await store.volume(body)
    bound = await store.until_phase(CLAIMS, "b", "Bound")
    assert bound["spec"]["volumeName"] == fast


async def test_a_claim_of_no_class_says_that_there_is_no_volume(store: Store) -> None:
    await store.claim(claim("a", storageClassName=""))
    message = await store.until_told("a", "FailedBinding")
    assert message == ("no persistent volumes available for this claim and no storage class is set")
    await store.claim(claim("b", storageClassName="none-such"))
    message = await store.until_told("b", "ProvisioningFailed")
    assert 'storageclass.storage.k8s.io "none-such" not found' in message
    assert (await store.until_phase(CLAIMS, "b", "Pending"))["spec"].get("volumeName") is None


async def test_a_claim_may_name_its_volume(store: Store) -> None:
    small = await store.volume(host_path())
    await store.until_phase(VOLUMES, small, "Available")
    await store.claim(claim("large", "2Mi", volumeName=small))
    message = await store.until_told("large", "VolumeMismatch")
    assert message == f'Cannot bind to requested volume "{small}": requested PV is too small'
    await store.claim(claim("right", volumeName=small))
    await store.until_phase(CLAIMS, "right", "Bound")
    await store.claim(claim("late", volumeName=small))
    message = await store.until_told("late", "FailedBinding")
    assert message == f'volume "{small}" already bound to a different claim.'
    await store.claim(claim("early", volumeName=f"{small}-to-come"))
    await store.until_phase(CLAIMS, "early", "Pending")
    await store.volume(host_path(f"{small}-to-come"))
    await store.until_phase(CLAIMS, "early", "Bound")


async def test_a_volume_may_be_reserved_for_a_claim(store: Store) -> None:
    reference = {"name": "mine", "namespace": store.workspace.namespace}
    name = await store.volume(host_path("", "5Mi", claimRef=reference))
    await store.until_phase(VOLUMES, name, "Available")
    await store.claim(claim("other"))
    await store.until_told("other", "ProvisioningFailed")
    await store.claim(claim("mine"))
    bound = await store.until_phase(CLAIMS, "mine", "Bound")
    assert bound["spec"]["volumeName"] == name
    assert (await store.get(CLAIMS, "other") or {})["status"]["phase"] == "Pending"


async def test_a_released_volume_is_kept_and_bound_again_only_by_hand(store: Store) -> None:
    name = await store.volume(host_path())
    await store.claim(claim("a"))
    await store.until_phase(CLAIMS, "a", "Bound")
    await store.client.delete(CLAIMS, "a", store.workspace.namespace)
    await store.until_gone(CLAIMS, "a")
    await store.until_phase(VOLUMES, name, "Released")
    await store.claim(claim("a"))
    await store.until_told("a", "ProvisioningFailed")
    assert (await store.get(CLAIMS, "a") or {})["status"]["phase"] == "Pending"
    # Merge patch: null removes.
    await store.client.merge_patch(VOLUMES, name, {"spec": {"claimRef": None}})
    bound = await store.until_phase(CLAIMS, "a", "Bound")
    assert bound["spec"]["volumeName"] == name


async def test_a_volume_nobody_can_delete_fails(store: Store) -> None:
    label = f"conformance.beamlit.com/{secrets.token_hex(4)}"
    body = local(nodeAffinity=only_on(label), persistentVolumeReclaimPolicy="Delete")
    name = await store.volume(body)
    await store.claim(claim("a"))
    await store.until_phase(CLAIMS, "a", "Bound")
    await store.client.delete(CLAIMS, "a", store.workspace.namespace)
    failed = await store.until_phase(VOLUMES, name, "Failed")
    assert "error getting deleter volume plugin for volume" in failed["status"]["message"]


async def test_a_claim_whose_volume_is_gone_is_lost(store: Store) -> None:
    name = await store.volume(host_path())
    await store.claim(claim("a"))
    await store.until_phase(CLAIMS, "a", "Bound")
    await store.until_phase(VOLUMES, name, "Bound")
    await store.client.delete(VOLUMES, name)
    going = await store.get(VOLUMES, name)
    assert going is not None
    assert "deletionTimestamp" in going["metadata"]
    await store.client.merge_patch(VOLUMES, name, {"metadata": {"finalizers": None}})
    await store.until_phase(CLAIMS, "a", "Lost")
    await store.workspace.start(store.using("p", "a"))
    message = await store.refusal("p", "bound to non-existent persistentvolume")
    assert message.startswith("0/")


async def test_a_bound_volume_is_deleted_when_its_claim_is_gone(store: Store) -> None:
    name = await store.volume(host_path())
    await store.claim(claim("a"))
    await store.until_phase(CLAIMS, "a", "Bound")
    await store.until_phase(VOLUMES, name, "Bound")
    await store.client.delete(VOLUMES, name)
    assert await store.get(VOLUMES, name) is not None
    await store.client.delete(CLAIMS, "a", store.workspace.namespace)
    await store.until_gone(VOLUMES, name)


async def test_many_claims_get_a_volume_each(store: Store) -> None:
    names = [f"c{number}" for number in range(12)]
    await asyncio.gather(*(store.claim(claim(name)) for name in names))
    await asyncio.gather(*(store.volume(host_path()) for _ in names))
    bound = [await store.until_phase(CLAIMS, name, "Bound") for name in names]
    assert len({item["spec"]["volumeName"] for item in bound}) == len(names)


async def test_a_bound_claim_grows_only_where_its_class_lets_it(store: Store) -> None:
    kind = storage_class(allowVolumeExpansion=True)
    growing = kind["metadata"]["name"]
    store.made.append((CLASSES, growing))
    await store.client.create(CLASSES, kind)
    more = {"spec": {"resources": {"requests": {"storage": "2Mi"}}}}
    for name, class_name in (("fixed", store.kind), ("grows", growing)):
        await store.volume(host_path("", "5Mi", storageClassName=class_name))
        await store.claim(claim(name, storageClassName=class_name))
        await store.until_phase(CLAIMS, name, "Bound")
    with pytest.raises(ApiError) as caught:
        await store.client.merge_patch(CLAIMS, "fixed", more, store.workspace.namespace)
    assert caught.value.status == 403
    assert "the storageclass that provisions the pvc must support resize" in str(caught.value)
    grown = await store.client.merge_patch(CLAIMS, "grows", more, store.workspace.namespace)
    assert grown["spec"]["resources"]["requests"]["storage"] == "2Mi"


async def test_kubectl_shows_what_is_bound_to_what(store: Store, kubectl: Any) -> None:
    name = await store.volume(host_path("", "2Mi", accessModes=["ReadWriteMany", "ReadWriteOnce"]))
    await store.claim(claim("a"))
    await store.until_phase(CLAIMS, "a", "Bound")
    await store.until_phase(VOLUMES, name, "Bound")
    table = (await kubectl("get", "persistentvolumeclaims", "a")).stdout.splitlines()
    headers = "NAME STATUS VOLUME CAPACITY ACCESS MODES STORAGECLASS VOLUMEATTRIBUTESCLASS AGE"
    assert table[0].split() == headers.split()
    shown = ["a", "Bound", name, "2Mi", "RWO,RWX", store.kind, "<unset>"]
    assert table[1].split()[:-1] == shown
    table = (await kubectl("get", "persistentvolumes", name)).stdout.splitlines()
    assert table[0].split() == [
        "NAME",
        "CAPACITY",
        "ACCESS",
        "MODES",
        "RECLAIM",
        "POLICY",
        "STATUS",
        "CLAIM",
        "STORAGECLASS",
        "VOLUMEATTRIBUTESCLASS",
        "REASON",
        "AGE",
    ]
    bound_to = f"{store.workspace.namespace}/a"
    shown = [name, "2Mi", "RWO,RWX", "Retain", "Bound", bound_to, store.kind, "<unset>"]
    assert table[1].split()[:-1] == shown
    table = (await kubectl("get", "storageclasses", store.kind)).stdout.splitlines()
    assert table[0].split() == [
        "NAME",
        "PROVISIONER",
        "RECLAIMPOLICY",
        "VOLUMEBINDINGMODE",
        "ALLOWVOLUMEEXPANSION",
        "AGE",
    ]
    shown = [store.kind, "kubernetes.io/no-provisioner", "Delete", "Immediate", "false"]
    assert table[1].split()[:-1] == shown


async def test_a_pod_waits_for_its_claim_to_be_there_and_bound(store: Store) -> None:
    await store.workspace.start(store.using("p", "a"))
    message = await store.refusal("p", "not found")
    assert 'persistentvolumeclaim "a" not found' in message
    await store.claim(claim("a"))
    await store.refusal("p", "pod has unbound immediate PersistentVolumeClaims")
    await store.volume(host_path())
    await store.workspace.until_phase("p", "Running")


async def test_a_claim_in_use_stays_until_its_pods_are_gone(store: Store) -> None:
    await store.volume(host_path())
    await store.claim(claim("a"))
    await store.workspace.start(store.using("p", "a"))
    await store.workspace.until_phase("p", "Running")
    namespace = store.workspace.namespace
    await store.client.delete(CLAIMS, "a", namespace)
    await store.workspace.start(store.using("late", "a"))
    await store.refusal("late", 'persistentvolumeclaim "a" is being deleted')
    claimed = await store.get(CLAIMS, "a")
    assert claimed is not None
    assert claimed["status"]["phase"] == "Bound"
    await store.client.delete(PODS, "p", namespace)
    await store.until_gone(CLAIMS, "a")
    await store.refusal("late", 'persistentvolumeclaim "a" not found')


@dataclass
class Labelled:
    """A node with a label nobody else has."""

    name: str
    label: str


@pytest.fixture
async def labelled(workspace: Workspace) -> AsyncIterator[Labelled]:
    node = Labelled(await workspace.node(), f"conformance.beamlit.com/{secrets.token_hex(4)}")
    for value in ("yes", None):
        body = {"metadata": {"labels": {node.label: value}}}
        await workspace.client.merge_patch(NODES, node.name, body)
        if value:
            yield node


async def test_a_pod_goes_where_its_volume_is(store: Store, labelled: Labelled) -> None:
    await store.volume(local(nodeAffinity=only_on(labelled.label)))
    nowhere = f"{labelled.label}-none"
    await store.volume(local("", nodeAffinity=only_on(nowhere), capacity={"storage": "9Mi"}))
    await store.claim(claim("here"))
    await store.claim(claim("nowhere", "5Mi"))
    await store.until_phase(CLAIMS, "here", "Bound")
    await store.until_phase(CLAIMS, "nowhere", "Bound")
    await store.workspace.start(store.using("placed", "here"))
    await store.workspace.start(store.using("stuck", "nowhere"))

    async def placed() -> Any:
        return (await store.workspace.get("placed"))["spec"].get("nodeName")

    assert await store.workspace.until(placed) == labelled.name
    message = await store.refusal("stuck", "PersistentVolume's node affinity")
    assert "node(s) didn't match PersistentVolume's node affinity" in message


async def test_a_claim_that_waits_for_its_consumer_is_bound_where_that_runs(
    store: Store, labelled: Labelled
) -> None:
    kind = storage_class(volumeBindingMode="WaitForFirstConsumer")
    name = kind["metadata"]["name"]
    store.made.append((CLASSES, name))
    await store.client.create(CLASSES, kind)
    await store.claim(claim("a", storageClassName=name))
    message = await store.until_told("a", "WaitForFirstConsumer")
    assert message == "waiting for first consumer to be created before binding"
    await store.workspace.start(store.using("p", "a"))
    await store.refusal("p", "node(s) didn't find available persistent volumes to bind")
    volume = await store.volume(local(nodeAffinity=only_on(labelled.label), storageClassName=name))
    bound = await store.until_phase(CLAIMS, "a", "Bound")
    assert bound["spec"]["volumeName"] == volume

    async def placed() -> Any:
        return (await store.workspace.get("p"))["spec"].get("nodeName")

    assert await store.workspace.until(placed) == labelled.name


async def test_a_claim_for_one_pod_takes_one_pod_at_a_time(store: Store) -> None:
    modes = ["ReadWriteOncePod"]
    await store.volume(host_path(accessModes=modes))
    await store.claim(claim("a", accessModes=modes))
    await store.workspace.start(store.using("first", "a"))
    await store.workspace.until_phase("first", "Running")
    await store.workspace.start(store.using("second", "a"))
    await store.refusal("second", "ReadWriteOncePod access mode already in-use by another pod")
    await store.client.delete(PODS, "first", store.workspace.namespace)
    await store.workspace.until_phase("second", "Running")
