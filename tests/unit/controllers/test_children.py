"""The picture of our own objects, kept by watches and by the answers to our writes."""

from __future__ import annotations

import asyncio
import contextlib

from tests.support.fakekube import FakeKube
from tests.support.situations import metadata

from beamlit_operator.api import labels
from beamlit_operator.controllers.children import Children
from beamlit_operator.kube import SERVICES, Json, ObjectKey

OURS = {labels.MANAGED_BY: labels.OPERATOR_NAME, labels.MODEL_DEPLOYMENT: "iris"}
OWNER = ObjectKey("team", "iris")


def service(name: str) -> Json:
    return {"metadata": metadata(name, labels=OURS, resourceVersion="1")}


async def test_what_was_deleted_before_a_watch_saw_it_is_dropped_by_the_second_audit() -> None:
    kube, heard = FakeKube(), []
    children = Children(kube, SERVICES, on_change=lambda item: heard.append(item["metadata"]))
    await kube.put(SERVICES, service("listed"))
    (reflector,) = children.reflectors
    following = asyncio.create_task(reflector.run())
    await reflector.wait_synced()
    following.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await following
    children.wrote(service("unseen"))
    children.audit()
    assert {s["metadata"]["name"] for s in children.of(OWNER)} == {"listed", "unseen"}
    heard.clear()
    children.audit()
    assert {s["metadata"]["name"] for s in children.of(OWNER)} == {"listed"}
    assert [each["name"] for each in heard] == ["unseen"]
    # It was no proof of its end: should it be there after all, an answer brings it back.
    children.wrote(service("unseen"))
    assert children.get(ObjectKey("team", "unseen")) is not None
