"""Claims as folders on this machine: made, mounted, shared, kept over a restart, and removed."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from beamlit_operator.devcluster.claims import CLAIMS, CLASSES, VOLUMES
from beamlit_operator.devcluster.cluster import DevCluster, Options
from beamlit_operator.kube import NAMESPACES, PODS, ApiError, Json, Resource

WRITE = "import sys, pathlib; pathlib.Path(sys.argv[1]).write_text(sys.argv[2])"
READ = "import sys, pathlib; print(pathlib.Path(sys.argv[1]).read_text())"


def claim(name: str, **spec: Any) -> Json:
    resources = {"requests": {"storage": "1Mi"}}
    return {
        "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": resources, **spec},
    }


def using(make_pod: Any, name: str, program: str, *arguments: str, **more: Any) -> Json:
    """A pod that runs ``program`` with the claim ``data`` at /data."""
    mount = {"name": "data", "mountPath": "/data", **more.pop("mount", {})}
    container = {"volumeMounts": [mount], **more.pop("container", {})}
    source = {"persistentVolumeClaim": {"claimName": more.pop("claim", "data")}}
    volumes = [{"name": "data", **source}]
    policy = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0}
    return make_pod(
        name, "-c", program, *arguments, container=container, volumes=volumes, **policy, **more
    )


async def phase(lab: Any, resource: Resource, name: str) -> str:
    try:
        found = await lab.client.get(resource, name, "default" if resource.namespaced else None)
    except ApiError as error:
        if error.not_found:
            return "gone"
        raise
    return str((found.get("status") or {}).get("phase"))


async def until_phase(lab: Any, resource: Resource, name: str, wanted: str) -> None:
    async def is_so() -> bool:
        return await phase(lab, resource, name) == wanted

    await lab.until(f"{resource.kind} {name} is {wanted}", is_so)


async def finished(lab: Any, body: Json) -> str:
    """Runs a pod to its good end; what it said."""
    name = body["metadata"]["name"]
    await lab.client.create(PODS, body)
    await until_phase(lab, PODS, name, "Succeeded")
    text = await lab.log(name)
    await lab.client.delete(PODS, name, "default", grace_period_seconds=0)
    return str(text)


async def folder_of(lab: Any, name: str) -> tuple[str, Path]:
    """The name of a claim's volume, and where it is."""
    await until_phase(lab, CLAIMS, name, "Bound")
    found = await lab.client.get(CLAIMS, name, "default")
    volume = await lab.client.get(VOLUMES, found["spec"]["volumeName"])
    return volume["metadata"]["name"], Path(volume["spec"]["hostPath"]["path"])


async def let_go(lab: Any, *names: str) -> None:
    for name in names:
        await lab.client.delete(CLAIMS, name, "default")
        await until_phase(lab, CLAIMS, name, "gone")


async def test_pods_on_any_node_share_what_a_claim_holds_until_it_is_deleted(
    lab: Any, make_pod: Any
) -> None:
    await lab.client.create(CLAIMS, claim("data"), "default")
    await finished(
        lab, using(make_pod, "writer", WRITE, "/data/a", "x", nodeSelector=host("us-east"))
    )
    body = using(make_pod, "reader", READ, "/data/a", nodeSelector=host("eu-west"))
    assert await finished(lab, body) == "x\n"
    name, folder = await folder_of(lab, "data")
    assert folder.parent == lab.cluster.options.data_dir / "volumes"
    assert (folder / "a").read_text() == "x"
    (folder / "locked").mkdir()
    (folder / "locked" / "b").touch()
    os.chmod(folder / "locked", 0)
    await let_go(lab, "data")
    await until_phase(lab, VOLUMES, name, "gone")
    assert not folder.exists()


def host(name: str) -> dict[str, str]:
    return {"kubernetes.io/hostname": name}


async def test_a_claim_made_again_under_the_same_name_is_empty(lab: Any, make_pod: Any) -> None:
    folders = []
    for text in ("first", "second"):
        await lab.client.create(CLAIMS, claim("data"), "default")
        _, folder = await folder_of(lab, "data")
        folders.append(folder)
        assert list(folder.iterdir()) == []
        await finished(lab, using(make_pod, text, WRITE, "/data/a", text))
        await let_go(lab, "data")
    assert folders[0] != folders[1]


async def test_what_a_class_retains_stays_when_the_claim_is_gone(lab: Any, make_pod: Any) -> None:
    body = {
        "metadata": {"name": "kept"},
        "provisioner": "beamlit.dev/directory",
        "reclaimPolicy": "Retain",
    }
    await lab.client.create(CLASSES, body)
    await lab.client.create(CLAIMS, claim("data", storageClassName="kept"), "default")
    await finished(lab, using(make_pod, "writer", WRITE, "/data/a", "kept"))
    name, folder = await folder_of(lab, "data")
    await let_go(lab, "data")
    await until_phase(lab, VOLUMES, name, "Released")
    assert (folder / "a").read_text() == "kept"
    await lab.client.delete(VOLUMES, name)
    await until_phase(lab, VOLUMES, name, "gone")
    assert (folder / "a").exists()


async def test_a_part_of_a_volume_is_made_and_cannot_lead_outside(lab: Any, make_pod: Any) -> None:
    await lab.client.create(CLAIMS, claim("data"), "default")
    _, folder = await folder_of(lab, "data")
    await finished(
        lab, using(make_pod, "w", WRITE, "/data/a", "deep", mount={"subPath": "one/two"})
    )
    assert (folder / "one" / "two" / "a").read_text() == "deep"
    named = {
        "mount": {"subPathExpr": "one/$(PART)"},
        "container": {"env": [{"name": "PART", "value": "two"}]},
    }
    mount = {"name": "data", "mountPath": "/data", **named["mount"]}
    container = {**named["container"], "volumeMounts": [mount]}
    assert await finished(lab, using(make_pod, "r", READ, "/data/a", container=container)) == (
        "deep\n"
    )
    outside = lab.cluster.options.data_dir / "pki"
    (folder / "link").symlink_to(outside)
    body = using(make_pod, "thief", READ, "/data/sa.key", mount={"subPath": "link"})
    await lab.client.create(PODS, body)

    text = 'failed to prepare subPath for volumeMount "data" of container "c"'

    async def refused() -> bool:
        item = await lab.client.get(PODS, "thief", "default")
        statuses = (item.get("status") or {}).get("containerStatuses") or ()
        return any((s["state"].get("waiting") or {}).get("message") == text for s in statuses)

    await lab.until("refused", refused)
    await lab.client.delete(PODS, "thief", "default", grace_period_seconds=0)
    await let_go(lab, "data")


async def test_a_local_volume_that_is_not_there_is_waited_for(
    lab: Any, make_pod: Any, tmp_path: Path
) -> None:
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "Exists"}]}
    volume = {
        "metadata": {"name": "by-hand"},
        "spec": {
            "capacity": {"storage": "1Mi"},
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "",
            "local": {"path": str(tmp_path / "disk")},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
        },
    }
    await lab.client.create(VOLUMES, volume)
    await lab.client.create(CLAIMS, claim("data", storageClassName=""), "default")
    await lab.client.create(PODS, using(make_pod, "late", READ, "/data/a"))

    async def told() -> bool:
        return any("does not exist" in text for text in await lab.events("late"))

    await lab.until("the pod says that the folder is missing", told)
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "a").write_text("there")
    await until_phase(lab, PODS, "late", "Succeeded")
    await lab.client.delete(PODS, "late", "default", grace_period_seconds=0)
    await let_go(lab, "data")
    await until_phase(lab, VOLUMES, "by-hand", "Released")
    assert (tmp_path / "disk" / "a").exists()
    await lab.client.delete(VOLUMES, "by-hand")


async def test_what_a_directory_cannot_be_is_said_and_not_pretended(lab: Any) -> None:
    source = {"kind": "PersistentVolumeClaim", "name": "other"}
    for name, spec, why in (
        ("block", {"volumeMode": "Block"}, "no block devices"),
        ("filled", {"dataSource": source}, "cannot fill a volume"),
        ("chosen", {"selector": {"matchLabels": {"a": "b"}}}, "selector is not supported"),
    ):
        await lab.client.create(CLAIMS, claim(name, **spec), "default")

        async def told(name: str = name, why: str = why) -> bool:
            return any(
                t.startswith("ProvisioningFailed") and why in t for t in await lab.events(name)
            )

        await lab.until(f"claim {name} says why", told)
        assert await phase(lab, CLAIMS, name) == "Pending"
        await let_go(lab, name)


async def test_a_volume_of_another_kind_is_not_mounted(lab: Any, make_pod: Any) -> None:
    spec = {
        "capacity": {"storage": "1Mi"},
        "accessModes": ["ReadWriteMany"],
        "storageClassName": "far",
        "nfs": {"server": "example.com", "path": "/"},
    }
    await lab.client.create(VOLUMES, {"metadata": {"name": "far"}, "spec": spec})
    await lab.client.create(CLAIMS, claim("data", storageClassName="far"), "default")
    await lab.client.create(PODS, using(make_pod, "far", READ, "/data/a"))

    async def told() -> bool:
        return any("cannot mount volume far" in text for text in await lab.events("far"))

    await lab.until("the pod says that it has no such volumes", told)
    await lab.client.delete(PODS, "far", "default", grace_period_seconds=0)
    await let_go(lab, "data")
    await lab.client.delete(VOLUMES, "far")


async def test_claims_go_with_their_namespace_and_leave_nothing(lab: Any) -> None:
    await lab.client.create(NAMESPACES, {"metadata": {"name": "short"}})
    names = [f"c{number}" for number in range(30)]
    await asyncio.gather(*(lab.client.create(CLAIMS, claim(name), "short") for name in names))

    async def bound() -> bool:
        items = (await lab.client.list(CLAIMS, "short")).items
        return len(items) == len(names) and all(c["status"]["phase"] == "Bound" for c in items)

    await lab.until("all are bound", bound)
    await lab.client.delete(NAMESPACES, "short")

    async def gone() -> bool:
        volumes = (await lab.client.list(VOLUMES)).items
        return not any(
            (item["spec"].get("claimRef") or {}).get("namespace") == "short" for item in volumes
        )

    await lab.until("all volumes are gone", gone)
    left = {path.name for path in (lab.cluster.options.data_dir / "volumes").iterdir()}
    assert left <= {item["metadata"]["name"] for item in (await lab.client.list(VOLUMES)).items}


async def test_a_restart_goes_on_where_it_was(tmp_path: Path) -> None:
    options = Options(tmp_path / "data", image_cache=tmp_path / "images")
    async with DevCluster(options) as cluster:
        await cluster.client.create(CLAIMS, claim("data"), "default")
        volume = await _volume_of(cluster)
        folder = Path(volume["spec"]["hostPath"]["path"])
        (folder / "a").write_text("before")
        (folder.parent / "pvc-cut-short").mkdir()
        await cluster.client.delete(CLASSES, "standard")
    assert (folder / "a").read_text() == "before"
    async with DevCluster(options) as cluster:
        async with asyncio.timeout(60):
            while (folder.parent / "pvc-cut-short").exists():
                await asyncio.sleep(0.01)
        again = await _volume_of(cluster)
        assert again["metadata"]["uid"] == volume["metadata"]["uid"]
        assert (folder / "a").read_text() == "before"
        assert (await cluster.client.get(CLASSES, "standard"))["provisioner"]
        await cluster.client.delete(CLAIMS, "data", "default")
        async with asyncio.timeout(60):
            while folder.exists():
                await asyncio.sleep(0.01)


async def _volume_of(cluster: DevCluster) -> Json:
    async with asyncio.timeout(60):
        while True:
            found = await cluster.client.get(CLAIMS, "data", "default")
            if found["status"]["phase"] == "Bound":
                return await cluster.client.get(VOLUMES, found["spec"]["volumeName"])
            await asyncio.sleep(0.01)
