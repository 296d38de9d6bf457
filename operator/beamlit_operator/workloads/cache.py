"""The files of a revision in a volume that outlives its pods, and that others share.

The volume is a PersistentVolumeClaim of the workspace. The container that fetches mounts the whole
of it and fetches into one folder; the model server mounts that folder, read-only, in the place of
the pod's own volume. The folder's name is an identity: a hash over what the fetcher is told to
bring, so that equal files are one folder whoever serves them.

| the revision's replicas | its pods were made | the claim              | pods are made           |
|-------------------------|--------------------|------------------------|-------------------------|
| none                    |                    | can be used            | with the cache          |
| none                    |                    | cannot                 | with their own volume   |
| some                    | without the cache  |                        | as they were            |
| some                    | with it            | can be used, or another| as they were            |
| some, all are ready     | with it            | cannot any more        | as they were            |
| some, not all are ready | with it            | cannot any more        | with their own volume   |

None of it defines a revision: a claim that appears restarts nobody and renames nothing. The last
row replaces the pods, one after the other, because those that are missing could not start.

A pod whose template says itself where the files are, lets another container write them, or fetches
with another image, command or variables from elsewhere, keeps its own volume: what others share
must be what was fetched.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from beamlit_operator.workloads.files import MODELS
from beamlit_operator.workloads.placing import has_replicas
from beamlit_operator.workloads.pods import FETCHING

Json = dict[str, Any]

CACHE = "/mnt/cache"
"""Where the container that fetches finds the volume."""

SHARED = "--shared"
"""Tells the fetcher that others use the folder too."""

_VOLUME = "models"
_OWN_MOUNT = {"name": _VOLUME, "mountPath": MODELS}
_ENDPOINTS = ("AWS_ENDPOINT_URL", "HF_ENDPOINT")
_FOLDER = re.compile(re.escape(CACHE) + r"/([0-9a-f]{32})")


@dataclass(frozen=True, slots=True)
class Cache:
    """The claim that the operator was told of, in one workspace.

    Attributes:
        claim: its name.
        usable: whether new pods can mount it: it is there, and not about to go.
    """

    claim: str
    usable: bool


@dataclass(frozen=True, slots=True)
class Place:
    """Where a pod finds its files: a folder of a claim."""

    claim: str
    identity: str


def identity(fetcher: Mapping[str, Any]) -> str | None:
    """The name of the folder for what a container fetches: 32 hexadecimal digits.

    Args:
        fetcher: the container, as it is without a cache.

    Returns:
        None when it is told something else than to fetch into the pod's own volume.
    """
    told = fetcher.get("args") or []
    # Another program brings what it likes, and variables of a ConfigMap may name another store.
    if fetcher.get("command") != ["beamlit"] or fetcher.get("envFrom"):
        return None
    if told[:1] != ["fetch"] or told.count(MODELS) != 1 or SHARED in told:
        return None
    endpoints = [each for each in fetcher.get("env") or () if each.get("name") in _ENDPOINTS]
    content = {"told": [each for each in told if each != MODELS], "endpoints": endpoints}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def with_cache(
    pod: Mapping[str, Any], *, cache: Cache | None, image: str, live: Any = None
) -> Json:
    """The pod as the table of this module says.

    Args:
        pod: the pod spec, with the user's template, without a cache.
        cache: the claim; None where the operator was told of none, or does not know yet.
        image: this project's image, of the version that knows how to share.
        live: the revision's Deployment as it is in the cluster, if it is.
    """
    place = _place(pod, cache, image, live)
    return dict(pod) if place is None else _moved(pod, place)


def place_of(pod: Mapping[str, Any]) -> Place | None:
    """The folder that a pod was made with; None for one that has its own volume."""
    for container in pod.get("initContainers") or ():
        if container.get("name") == FETCHING:
            for argument in container.get("args") or ():
                found = _FOLDER.fullmatch(str(argument))
                claim = _claim(pod)
                if found is not None and claim is not None:
                    return Place(claim, found[1])
    return None


def fetching(fetcher: Mapping[str, Any], place: Place) -> Json:
    """The container that fetches, told to fetch into a folder of the cache."""
    return {
        **fetcher,
        "args": [
            *(f"{CACHE}/{place.identity}" if a == MODELS else a for a in fetcher["args"]),
            SHARED,
        ],
        "volumeMounts": [
            {**mount, "mountPath": CACHE} if mount.get("name") == _VOLUME else dict(mount)
            for mount in fetcher.get("volumeMounts") or ()
        ],
    }


def volume(claim: str) -> Json:
    """The claim as a pod's volume."""
    return {"name": _VOLUME, "persistentVolumeClaim": {"claimName": claim}}


def _place(pod: Mapping[str, Any], cache: Cache | None, image: str, live: Any) -> Place | None:
    folder = _possible(pod)
    if folder is None:
        return None
    if live is None or not has_replicas(live):
        known = cache is not None and cache.usable and _image(pod) == image
        return Place(cache.claim, folder) if cache is not None and known else None
    before = place_of(live["spec"]["template"]["spec"])
    if before is None:
        return None
    gone = cache is not None and cache.claim == before.claim and not cache.usable
    return None if gone and not _all_ready(live) else Place(before.claim, folder)


def _image(pod: Mapping[str, Any]) -> str:
    """What fetches: another image than ours may be of another version."""
    containers = pod.get("initContainers") or ()
    return next((str(c.get("image")) for c in containers if c.get("name") == FETCHING), "")


def _all_ready(live: Mapping[str, Any]) -> bool:
    wanted = live["spec"].get("replicas")
    return bool(
        (live.get("status") or {}).get("readyReplicas", 0) >= (1 if wanted is None else wanted)
    )


def _possible(pod: Mapping[str, Any]) -> str | None:
    """The identity of what the pod fetches, if it can come from a cache."""
    if {"name": _VOLUME, "emptyDir": {}} not in (pod.get("volumes") or []):
        return None
    folder = None
    for container, mount in _mounts(pod):
        if container.get("name") == FETCHING:
            folder = identity(container) if mount == _OWN_MOUNT else None
        elif mount.get("readOnly") is not True or mount.get("subPathExpr"):
            return None  # a mount has a subPath or a subPathExpr, and here it needs the first
    return folder


def _mounts(pod: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Every mount of the volume of the files, with its container."""
    for kind in ("initContainers", "containers"):
        for container in pod.get(kind) or ():
            for mount in container.get("volumeMounts") or ():
                if mount.get("name") == _VOLUME:
                    yield container, mount


def _moved(pod: Mapping[str, Any], place: Place) -> Json:
    def reading(container: Mapping[str, Any]) -> Json:
        mounts = [
            {**mount, "subPath": _below(place, mount)} if mount.get("name") == _VOLUME else mount
            for mount in container.get("volumeMounts") or ()
        ]
        return {**container, "volumeMounts": mounts} if mounts else dict(container)

    return {
        **pod,
        "initContainers": [
            fetching(each, place) if each.get("name") == FETCHING else reading(each)
            for each in pod["initContainers"]
        ],
        "containers": [reading(each) for each in pod["containers"]],
        "volumes": [
            volume(place.claim) if each.get("name") == _VOLUME else each for each in pod["volumes"]
        ],
    }


def _below(place: Place, mount: Mapping[str, Any]) -> str:
    part = mount.get("subPath")
    return f"{place.identity}/{part}" if part else place.identity


def _claim(pod: Mapping[str, Any]) -> str | None:
    for each in pod.get("volumes") or ():
        if each.get("name") == _VOLUME:
            name = (each.get("persistentVolumeClaim") or {}).get("claimName")
            return str(name) if name else None
    return None
