"""Stores of every kind in bad weather: what arrives is whole and right, or nothing is published."""

from __future__ import annotations

import io
import random
import resource
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from tests.support.flakystore import FlakyStore
from tests.support.hub import HubServer
from tests.support.registry import IMAGE_LAYER, Registry, docker_config, packed
from tests.support.webstore import WebStore

from beamlit_operator.origins import (
    HubRef,
    OciRef,
    OriginError,
    OriginReason,
    OriginRef,
    S3Ref,
    WebFile,
    WebRef,
)
from beamlit_operator.origins.fetch import fetch
from beamlit_operator.origins.fetching import arriving

from .conftest import KEYS

FILES = {"weights.bin": random.Random(7).randbytes(400_000), "config.json": b"{}"}
SECRETS = ("secret-example", "token-example", "cGVvcGxl", "password-example")
KINDS = ("s3", "hub", "web", "oci")
PACKED = ("s3 unpacked", "oci image")


@dataclass
class Weather:
    """A model in a store of one kind, behind a network that does what it is told."""

    ref: OriginRef
    network: FlakyStore
    credentials: Mapping[str, str] = field(default_factory=dict)
    unpack: bool = False

    def bring(self, directory: Path, *, shared: bool = False) -> None:
        fetch(
            self.ref,
            directory,
            credentials=self.credentials,
            report=lambda _: None,
            unpack=self.unpack,
            shared=shared,
        )
        assert files_in(directory) == FILES

    def failure(self, directory: Path, *, shared: bool = False) -> OriginError:
        with pytest.raises(OriginError) as caught:
            self.bring(directory, shared=shared)
        assert files_in(directory) == {}
        assert not [each for each in SECRETS if each in caught.value.message]
        assert "\n" not in caught.value.message
        return caught.value


def files_in(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and ".beamlit" not in path.parts
    }


def archive() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for name, content in FILES.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return made.getvalue()


@pytest.fixture
def weather(
    request: pytest.FixtureRequest, s3: Any, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Weather]:
    monkeypatch.setattr(arriving, "PART_BYTES", 100_000)
    hurry(monkeypatch)
    with ExitStack() as stack:

        def behind(endpoint: str) -> FlakyStore:
            return stack.enter_context(FlakyStore(endpoint))

        match request.param:
            case "s3":
                for name, content in FILES.items():
                    s3.put_object(Bucket="models", Key=f"m/{name}", Body=content)
                network = behind(s3_endpoint)
                yield Weather(S3Ref("models", "m", endpoint=network.endpoint), network, KEYS)
            case "s3 unpacked":
                s3.put_object(Bucket="models", Key="m/model.tar.gz", Body=archive())
                network = behind(s3_endpoint)
                ref = S3Ref("models", "m", endpoint=network.endpoint)
                yield Weather(ref, network, KEYS, unpack=True)
            case "hub":
                hub = stack.enter_context(HubServer())
                hub.tokens = {"token-example"}
                hub.add("org/m", FILES)
                network = behind(hub.endpoint)
                hub.content_network = network.endpoint.replace("127.0.0.1", "localhost")
                hub_ref = HubRef("org/m", endpoint=network.endpoint)
                yield Weather(hub_ref, network, {"token": "token-example"})
            case "web":
                network = behind(stack.enter_context(WebStore(files=dict(FILES))).endpoint)
                files = tuple(
                    WebFile(f"{network.endpoint}/{name}", sha256(content).hexdigest())
                    for name, content in FILES.items()
                )
                yield Weather(WebRef(files), network, {"token": "token-example"})
            case kind:
                registry = stack.enter_context(Registry())
                network = behind(registry.endpoint)
                if kind == "oci":
                    registry.artifact("org/m", "1", FILES)
                else:
                    layer = packed({f"models/{name}": data for name, data in FILES.items()})
                    registry.push("org/m", "1", [registry.layer("org/m", layer, IMAGE_LAYER)])
                host = network.endpoint.removeprefix("http://")
                config = docker_config(host, "people", "password-example")
                yield Weather(OciRef(host, "org/m", "1"), network, {".dockerconfigjson": config})


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for a store to recover waits a hundredth as long."""
    sleep, wait = time.sleep, threading.Event.wait

    def waited(self: threading.Event, timeout: float | None = None) -> bool:
        named = threading.current_thread().name.startswith(("s3", "hub", "web"))
        return wait(self, timeout / 100 if named and timeout is not None else timeout)

    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(seconds / 100))
    monkeypatch.setattr(threading.Event, "wait", waited)
    # botocore's own.
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("weather", KINDS, indirect=True)
def test_a_storm_that_passes_is_waited_for(weather: Weather, tmp_path: Path, status: int) -> None:
    weather.network.refuse = [status] * 2
    weather.bring(tmp_path)


@pytest.mark.parametrize("weather", KINDS, indirect=True)
def test_a_storm_that_does_not_ends_the_fetch_after_a_bounded_number_of_requests(
    weather: Weather, tmp_path: Path
) -> None:
    network, storm = weather.network, [429, 503] * 5_000
    network.refuse = list(storm)
    before = weather.failure(tmp_path)
    asked = [len(storm) - len(network.refuse)]
    network.refuse = []
    # From the first file on.
    network.before_get = lambda _: network.refuse or network.refuse.extend(storm)
    during = weather.failure(tmp_path)
    asked.append(len(storm) - len(network.refuse))
    for error in (before, during):
        assert error.reason in (OriginReason.RATE_LIMITED, OriginReason.UNREACHABLE)
        assert not error.stalled
    assert 0 < min(asked) <= max(asked) <= 300, asked
    network.refuse, network.before_get = [], lambda _: None
    weather.bring(tmp_path)


@pytest.mark.parametrize("weather", KINDS, indirect=True)
def test_transfers_that_break_off_are_gone_on_with(weather: Weather, tmp_path: Path) -> None:
    weather.network.cut_at = [30_000, 0, 50_000, 1]
    weather.bring(tmp_path)


@pytest.mark.parametrize("weather", KINDS, indirect=True)
def test_a_store_that_always_breaks_off_is_given_up_and_heals(
    weather: Weather, tmp_path: Path
) -> None:
    weather.network.cut_at = [0] * 10_000
    error = weather.failure(tmp_path)
    assert error.reason is OriginReason.UNREACHABLE
    assert 10_000 - len(weather.network.cut_at) <= 300
    weather.network.cut_at = []
    weather.bring(tmp_path)


@pytest.mark.parametrize("weather", KINDS, indirect=True)
def test_content_that_is_spoilt_on_the_way_is_never_published(
    weather: Weather, tmp_path: Path
) -> None:
    def spoilt(number: int, body: bytes) -> bytes:
        # Each time in another way: the ETag of S3 guards against accidents only.
        return body[:-2] + number.to_bytes(2) if len(body) > 10_000 else body

    weather.network.spoil = spoilt
    assert weather.failure(tmp_path).reason is OriginReason.CORRUPT
    weather.network.spoil = lambda _, body: body
    weather.bring(tmp_path)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("weather", [*KINDS, *PACKED], indirect=True)
def test_a_disk_that_fills_up_is_told_and_the_next_fetch_completes(
    weather: Weather, tmp_path: Path, shared: bool
) -> None:
    directory = tmp_path / ("0" * 32)
    with room_for(150_000):
        error = weather.failure(directory, shared=shared)
    assert error.reason is OriginReason.LOCAL_DISK
    assert "File too large" in error.message
    weather.bring(directory, shared=shared)


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file becomes larger: the kernel refuses the write, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
