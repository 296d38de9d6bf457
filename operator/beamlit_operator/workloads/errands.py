"""Pods of the cache's own: one that fetches a Model's files ahead, one that tidies. Pure.

They run where their volume can be mounted, keep to the Pod Security Standard `restricted`, and end
by themselves. What fetches is the same container as in a pod that serves, so the same is told of
its progress and its failures; a second one follows it only because a pod has to have one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import Any

from beamlit_operator.api import labels
from beamlit_operator.workloads.access import access_annotations, with_access
from beamlit_operator.workloads.cache import CACHE, Place, fetching, identity, volume
from beamlit_operator.workloads.files import ModelFiles
from beamlit_operator.workloads.outgoing import Outgoing, with_way_out
from beamlit_operator.workloads.pods import (
    FETCHING,
    LAST_WORDS,
    fetching_container,
    pod_security,
    restricted,
)

Json = dict[str, Any]

PREFETCH, TIDY = "prefetch", "tidy"
TIDYING = "tidy"
"""The container that tidies."""

TIDY_SECONDS = 3600
"""How long tidying may take; what is left then is the next one's."""

_OWNER = "beamlit-cache"


def folder_of(files: ModelFiles, *, image: str) -> str | None:
    """The folder of a cache that files belong into; None if they are not fetched."""
    return identity(fetching_container(files, image=image))


def prefetching_pod(
    model: Mapping[str, Any], files: ModelFiles, *, claim: str, image: str, outgoing: Outgoing
) -> Json | None:
    """The pod that fetches the files of a Model into the cache; None if they are not fetched.

    Args:
        model: the Model, which owns the pod.
        files: what is fetched.
        claim: the cache.
        image: this project's image.
        outgoing: the way out of the cluster.
    """
    fetcher = fetching_container(files, image=image)
    folder = identity(fetcher)
    if folder is None:
        return None
    metadata = model["metadata"]
    spec: Json = {
        "restartPolicy": "OnFailure",
        "initContainers": [fetching(fetcher, Place(claim, folder))],
        "containers": [
            {
                "name": "done",
                "image": image,
                "command": ["beamlit"],
                "args": ["cache", "--help"],
                "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
                "securityContext": restricted(),
            }
        ],
        **_pod(claim),
    }
    spec = with_way_out(spec, FETCHING, outgoing=outgoing)
    spec = with_access(spec, FETCHING, access=files.access)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"beamlit-prefetch-{_short(metadata['name'], metadata['uid'], folder)}",
            "namespace": metadata["namespace"],
            "labels": {**_labels(PREFETCH), labels.MODEL: metadata["name"]},
            "annotations": access_annotations(spec, files.access),
            "ownerReferences": [
                {
                    "apiVersion": model["apiVersion"],
                    "kind": model["kind"],
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                    "controller": True,
                }
            ],
        },
        "spec": spec,
    }


def tidying_pod(
    workspace: str, *, claim: str, image: str, limit: str, keep: Collection[str], then: int
) -> Json:
    """The pod that removes what nobody uses.

    Args:
        workspace: whose cache it is.
        claim: the cache.
        image: this project's image.
        limit: what all folders may take together, a quantity.
        keep: the folders that are in use.
        then: when that was looked up, in seconds since 1970.
    """
    arguments = ["cache", "tidy", CACHE, "--limit", limit, "--then", str(then)]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"beamlit-tidy-{_short(claim, str(then))}",
            "namespace": workspace,
            "labels": _labels(TIDY),
        },
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": TIDY_SECONDS,
            "containers": [
                {
                    "name": TIDYING,
                    "image": image,
                    "command": ["beamlit"],
                    "args": [*arguments, *(["--keep", *sorted(keep)] if keep else [])],
                    "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
                    "securityContext": restricted(),
                    "terminationMessagePolicy": LAST_WORDS,
                    "volumeMounts": [{"name": "models", "mountPath": CACHE}],
                }
            ],
            **_pod(claim),
        },
    }


def _pod(claim: str) -> Json:
    return {
        "volumes": [volume(claim), {"name": "tmp", "emptyDir": {}}],
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security(),
    }


def _labels(errand: str) -> dict[str, str]:
    # Managed by a name of its own: no deployment's pods are looked for among these.
    return {
        labels.NAME: _OWNER,
        labels.COMPONENT: errand,
        labels.PART_OF: "beamlit",
        labels.MANAGED_BY: _OWNER,
        labels.ERRAND: errand,
    }


def _short(*parts: str) -> str:
    return hashlib.sha256("/".join(parts).encode()).hexdigest()[:10]
