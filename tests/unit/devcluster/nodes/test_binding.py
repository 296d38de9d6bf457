"""Claims and volumes: what becomes of them, as tables; the choice of a volume, as properties."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamlit_operator.devcluster.claims import best_match, default_class, is_bound_to
from beamlit_operator.devcluster.controllers.binding import (
    Around,
    bound_claim,
    bound_volume,
    decide_claim,
    decide_volume,
)
from beamlit_operator.devcluster.controllers.provisioner import Directories, name_for
from beamlit_operator.devcluster.quantities import parse

DONE = {"pv.kubernetes.io/bind-completed": "yes"}
MADE = {"pv.kubernetes.io/provisioned-by": "beamlit.dev/directory"}


def claim(uid: str = "u", *, phase: str = "Pending", notes: Any = None, **spec: Any) -> Any:
    asked = {"requests": {"storage": spec.pop("size", "1Mi")}}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "c", "namespace": "n", "uid": uid, "annotations": notes or {}},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": asked,
            "storageClassName": "s",
            **spec,
        },
        "status": {"phase": phase},
    }


def volume(name: str = "v", *, notes: Any = None, phase: str = "Available", **spec: Any) -> Any:
    return {
        "metadata": {"name": name, "uid": name, "annotations": notes or {}},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": spec.pop("size", "1Mi")},
            "storageClassName": "s",
            **spec,
        },
        "status": {"phase": phase},
    }


def reference(uid: str = "u") -> Any:
    return {"name": "c", "namespace": "n", **({"uid": uid} if uid else {})}


def kind(name: str = "s", **more: Any) -> Any:
    created = more.pop("created", "2026-01-01T00:00:00Z")
    notes = {"storageclass.kubernetes.io/is-default-class": str(more.pop("default", "false"))}
    metadata = {"name": name, "creationTimestamp": created, "annotations": notes}
    return {"metadata": metadata, "provisioner": "p", **more}


WAITS = kind(volumeBindingMode="WaitForFirstConsumer")


@pytest.mark.parametrize(
    ("item", "volumes", "classes", "expected"),
    [
        (claim(notes=DONE, phase="Bound"), [], [], ("phase", "Lost", "ClaimLost")),
        (claim(notes=DONE, volumeName="v"), [], [], ("phase", "Lost", "ClaimLost")),
        (claim(notes=DONE, volumeName="v"), [volume()], [], ("bind", "v", None)),
        (
            claim(notes=DONE, volumeName="v"),
            [volume(claimRef=reference("other"))],
            [],
            ("phase", "Lost", "ClaimMisbound"),
        ),
        (claim(volumeName="v"), [], [], ("phase", "Pending", None)),
        (claim(volumeName="v"), [volume()], [], ("bind", "v", None)),
        (
            claim(volumeName="v", size="2Mi"),
            [volume()],
            [],
            ("phase", "Pending", "VolumeMismatch"),
        ),
        (claim(volumeName="v"), [volume(claimRef=reference(""))], [], ("bind", "v", None)),
        (
            claim(volumeName="v"),
            [volume(claimRef=reference("other"))],
            [],
            ("phase", "Pending", "FailedBinding"),
        ),
        (claim(), [volume()], [], ("bind", "v", None)),
        (claim(storageClassName=None), [], [kind(default="true")], ("into", "s", None)),
        (claim(), [volume()], [WAITS], ("phase", "Pending", "WaitForFirstConsumer")),
        (claim(), [volume(claimRef=reference(""))], [WAITS], ("bind", "v", None)),
        (
            claim(notes={"volume.kubernetes.io/selected-node": "n"}),
            [],
            [WAITS],
            ("provision", "s", None),
        ),
        (claim(), [], [kind()], ("provision", "s", None)),
        (claim(storageClassName=""), [], [kind()], ("phase", "Pending", "FailedBinding")),
        (claim(), [], [], ("phase", "Pending", "ProvisioningFailed")),
    ],
)
def test_what_becomes_of_a_claim(item: Any, volumes: Any, classes: Any, expected: Any) -> None:
    named = {v["metadata"]["name"]: v for v in volumes}
    plan = decide_claim(item, Around(named, volumes, classes))
    told = plan.told.reason if plan.told else None
    found: dict[str, Any] = {"phase": plan.phase, "into": plan.into}
    for what in ("bind", "provision"):
        chosen = getattr(plan, what)
        found[what] = chosen["metadata"]["name"] if chosen else None
    assert {k: v for k, v in found.items() if v} == {expected[0]: expected[1]}
    assert told == expected[2]


@pytest.mark.parametrize(
    ("item", "of", "expected"),
    [
        (volume(), None, {"phase": "Available"}),
        (volume(claimRef=reference("")), None, {"phase": "Available", "wake": True}),
        (volume(claimRef=reference()), None, {"phase": "Released", "reclaim": True}),
        (volume(claimRef=reference()), claim("other"), {"phase": "Released", "reclaim": True}),
        (volume(claimRef=reference(), phase="Failed"), None, {"reclaim": True}),
        (volume(claimRef=reference()), claim(), {"wake": True}),
        (volume(claimRef=reference()), claim(volumeName="v"), {"phase": "Bound"}),
        (volume(claimRef=reference()), claim(volumeName="w"), {"unbind": True}),
        (
            volume(claimRef=reference(), notes=MADE, persistentVolumeReclaimPolicy="Delete"),
            claim(volumeName="w"),
            {"phase": "Released", "reclaim": True},
        ),
    ],
)
def test_what_becomes_of_a_volume(item: Any, of: Any, expected: dict[str, Any]) -> None:
    plan = decide_volume(item, of)
    found = {name: getattr(plan, name) for name in ("phase", "unbind", "reclaim", "wake")}
    assert {name: value for name, value in found.items() if value} == expected


def test_a_binding_that_is_done_writes_nothing() -> None:
    mine = claim(volumeName="v", notes=DONE)
    assert bound_claim(mine, volume()) is None
    assert bound_volume(volume(claimRef=reference()), mine, reference()) is None


def test_a_persons_reservation_is_not_noted_as_the_controllers() -> None:
    body = bound_volume(volume(claimRef=reference("")), claim(), reference())
    assert body is not None
    assert "annotations" not in body["metadata"]


def test_of_several_default_classes_the_youngest_counts_then_the_first_by_name() -> None:
    old, new = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"
    classes = [
        kind("a", default="true", created=old),
        kind("c", default="true", created=new),
        kind("b", default="true", created=new),
        kind("d", created="2026-01-03T00:00:00Z"),
    ]
    assert default_class(classes) == "b"
    assert default_class([kind("d")]) is None


MODES = st.lists(st.sampled_from(["ReadWriteOnce", "ReadWriteMany"]), min_size=1, unique=True)
SIZES = st.integers(1, 5).map(lambda n: f"{n}Mi")


@given(
    MODES,
    SIZES,
    st.lists(
        st.tuples(
            MODES,
            SIZES,
            st.sampled_from(["s", "t"]),
            st.sampled_from(["Available", "Released"]),
            st.sampled_from([None, "", "u", "other"]),
        ),
        max_size=6,
    ),
)
def test_a_claim_gets_only_what_does_and_nothing_smaller_would(
    modes: list[str], size: str, shapes: list[Any]
) -> None:
    wanted = claim(accessModes=modes, size=size)
    volumes = []
    for number, (has, holds, of, phase, uid) in enumerate(shapes):
        reserved = {} if uid is None else {"claimRef": reference(uid)}
        volumes.append(
            volume(
                f"v{number}",
                accessModes=has,
                size=holds,
                storageClassName=of,
                phase=phase,
                **reserved,
            )
        )
    found = best_match(wanted, volumes)

    def does(item: Any) -> bool:
        spec = item["spec"]
        large = parse(spec["capacity"]["storage"]) >= parse(size)
        return large and set(modes) <= set(spec["accessModes"])

    def free(item: Any) -> bool:
        spec, phase = item["spec"], item["status"]["phase"]
        return "claimRef" not in spec and phase == "Available" and spec["storageClassName"] == "s"

    reserved_ones = [v for v in volumes if does(v) and is_bound_to(v, wanted)]
    free_ones = [v for v in volumes if does(v) and free(v)]
    if reserved_ones:
        assert found in reserved_ones
    elif free_ones:
        assert found in free_ones
        same = [
            v
            for v in free_ones
            if len(v["spec"]["accessModes"]) == len(found["spec"]["accessModes"])
        ]
        assert min(parse(v["spec"]["capacity"]["storage"]) for v in same) == parse(
            found["spec"]["capacity"]["storage"]
        )
    else:
        assert found is None


def test_only_a_directory_that_was_made_here_is_removed(tmp_path: Path) -> None:
    directories = Directories(tmp_path / "volumes")
    made = directories.make(claim("1"), kind())
    assert directories.is_ours(made)
    other = tmp_path / "other"
    other.mkdir()
    for changed in (
        {**made, "metadata": {**made["metadata"], "annotations": {}}},
        {**made, "spec": {**made["spec"], "hostPath": {"path": str(other)}}},
        {**made, "metadata": {**made["metadata"], "name": "renamed"}},
    ):
        assert not directories.is_ours(changed)
    folder = tmp_path / "volumes" / name_for(claim("1"))
    (folder / "in").mkdir()
    (folder / "in" / "link").symlink_to(other)
    (folder / "away").symlink_to(other)
    os.chmod(folder / "in", 0)
    directories.remove(made)
    directories.remove(made)
    assert not folder.exists()
    assert other.is_dir()


def test_what_a_directory_is_swept_for_is_that_it_is_nobodys_and_empty(tmp_path: Path) -> None:
    directories = Directories(tmp_path)
    for name in ("known", "empty", "kept"):
        (tmp_path / name).mkdir()
    (tmp_path / "kept" / "data").touch()
    directories.sweep({"known"})
    assert {path.name for path in tmp_path.iterdir()} == {"known", "kept"}
