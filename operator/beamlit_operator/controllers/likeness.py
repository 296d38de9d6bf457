"""Whether an object in the cluster is as we want it, without asking the API server.

A steady cluster must see no writes, also right after a restart. So the comparison uses the objects
themselves, not a memory of what was written:

- every field we want has to be there with our value (what others or the API server added beside
  them is not ours to judge);
- a field we wanted earlier and no longer want has to go: the annotation `beamlit.com/applied` holds
  a digest of what was applied last, and differs then.

Values that the API server rewrites (`1000m` becomes `1`) would never compare equal. After an apply
that leaves such an object as it is, :class:`Settled` remembers that they are the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from beamlit_operator.kube import Json

APPLIED = "beamlit.com/applied"
"""Annotation on children: a digest of what was applied."""


def digest(wanted: Json) -> str:
    """16 hex digits that change when ``wanted`` does."""
    text = json.dumps(wanted, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def stamped(wanted: Json) -> Json:
    """``wanted`` with its digest in the annotation."""
    metadata = wanted["metadata"]
    annotations = {**(metadata.get("annotations") or {}), APPLIED: digest(wanted)}
    return {**wanted, "metadata": {**metadata, "annotations": annotations}}


def holds(wanted: Any, live: Any) -> bool:
    """Whether everything in ``wanted`` stands in ``live``. Empty and absent are the same.

    Items of a list are matched by `name` where they have one, else by position in lists of equal
    length.
    """
    if isinstance(wanted, dict):
        if not wanted:
            return True
        return isinstance(live, dict) and all(holds(v, live.get(k)) for k, v in wanted.items())
    if isinstance(wanted, list | tuple):
        if not wanted:
            return True
        return isinstance(live, list | tuple) and _items_hold(wanted, live)
    if wanted is None:
        return live is None
    if isinstance(wanted, bool) or isinstance(live, bool):
        return wanted is live
    return bool(wanted == live)


def _items_hold(wanted: Sequence[Any], live: Sequence[Any]) -> bool:
    named = [item["name"] for item in wanted if isinstance(item, dict) and "name" in item]
    if len(named) == len(wanted) and len(set(named)) == len(named):
        by_name = {item.get("name"): item for item in live if isinstance(item, dict)}
        return all(holds(item, by_name.get(item["name"])) for item in wanted)
    return len(wanted) == len(live) and all(holds(a, b) for a, b in zip(wanted, live, strict=True))


class Settled:
    """Remembers, per object, that a live form was the API server's answer to a wanted one."""

    def __init__(self) -> None:
        self._pairs: dict[str, tuple[str, str]] = {}

    def __len__(self) -> int:
        return len(self._pairs)

    def same(self, wanted: Json, live: Json) -> bool:
        """Whether ``live`` is what applying ``wanted`` (stamped) gave or would give."""
        if holds(wanted, live):
            return True
        known = self._pairs.get(live["metadata"].get("uid", ""))
        return known is not None and known == (digest(wanted), _essence(live))

    def remember(self, wanted: Json, answer: Json) -> None:
        """``answer`` is what the API server made of ``wanted``."""
        uid = answer["metadata"].get("uid", "")
        if holds(wanted, answer):
            self._pairs.pop(uid, None)
        else:
            self._pairs[uid] = (digest(wanted), _essence(answer))

    def forget(self, uid: str) -> None:
        """The object is gone."""
        self._pairs.pop(uid, None)


def _essence(live: Json) -> str:
    """A digest of what an apply could change: not the status, nor what changes by itself."""
    metadata = {
        k: live["metadata"].get(k) for k in ("labels", "annotations", "ownerReferences", "uid")
    }
    rest = {k: v for k, v in live.items() if k not in ("metadata", "status")}
    spec = {k: v for k, v in (rest.get("spec") or {}).items() if k != "replicas"}
    return digest({**rest, "spec": spec, "metadata": metadata})
