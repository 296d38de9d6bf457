"""Reading a part of one listed file, as is done with headers of weights."""

from __future__ import annotations

import random
import socket
from dataclasses import replace
from typing import Any

import pytest
from tests.support.hub import HubServer

from beamlit_operator.origins import HubRef, OriginError, OriginReason, S3Ref, read
from beamlit_operator.origins.kinds import look
from beamlit_operator.origins.listing import MAX_READ_BYTES, ResolvedOrigin

from .conftest import KEYS

CONTENT = random.Random(1).randbytes(300_000)


def listed(found: ResolvedOrigin, path: str) -> Any:
    return next(file for file in found.files if file.path == path)


@pytest.fixture
def in_s3(s3: Any, s3_endpoint: str) -> S3Ref:
    s3.put_object(Bucket="models", Key="m/model.safetensors", Body=CONTENT)
    s3.put_object(Bucket="models", Key="m/config.json", Body=b"{}")
    return S3Ref("models", "m", endpoint=s3_endpoint)


@pytest.fixture
def on_hub(hub: HubServer) -> HubRef:
    hub.add("org/m", {"model.safetensors": CONTENT, "config.json": b"{}"})
    return HubRef("org/m", endpoint=hub.endpoint)


@pytest.mark.parametrize("store", ["in_s3", "on_hub"])
def test_a_part_of_a_file_is_read(store: str, request: pytest.FixtureRequest) -> None:
    ref = request.getfixturevalue(store)
    credentials = KEYS if isinstance(ref, S3Ref) else {}
    found = look(ref, credentials)
    ref = ref.at(found.revision)
    for path, content in (("model.safetensors", CONTENT), ("config.json", b"{}")):
        file = listed(found, path)
        for start, length in ((0, 8), (1, 1), (0, MAX_READ_BYTES), (299_990, 100), (400_000, 1)):
            part = read(ref, credentials, file, start, length)
            assert part == content[start : start + length]


def test_an_object_that_changed_is_not_read(in_s3: S3Ref, s3: Any) -> None:
    found = look(in_s3, KEYS)
    s3.put_object(Bucket="models", Key="m/config.json", Body=b"[]")
    with pytest.raises(OriginError) as caught:
        read(in_s3, KEYS, listed(found, "config.json"), 0, 2)
    assert caught.value.reason is OriginReason.CHANGED


def test_a_store_that_is_away_is_unreachable(in_s3: S3Ref, on_hub: HubRef) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"
        for ref, credentials in ((in_s3, KEYS), (on_hub, {})):
            found = look(ref, credentials)
            away = replace(ref, endpoint=nobody)
            with pytest.raises(OriginError) as caught:
                read(away, credentials, listed(found, "config.json"), 0, 2)
            assert caught.value.reason is OriginReason.UNREACHABLE


def test_more_than_the_bound_is_never_asked_for(in_s3: S3Ref) -> None:
    file = listed(look(in_s3, KEYS), "config.json")
    for start, length in ((0, MAX_READ_BYTES + 1), (-1, 1)):
        with pytest.raises(ValueError, match="at most"):
            read(in_s3, KEYS, file, start, length)
