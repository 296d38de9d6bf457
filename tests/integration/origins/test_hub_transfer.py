"""How a repository's files arrive: in ranges, by Xet, and through what goes wrong on the way."""

from __future__ import annotations

import errno
import hashlib
import os
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import huggingface_hub
import pytest
from tests.support.hub import HubServer
from tests.support.xet import XetStore

from beamlit_operator.controllers.admission.certificates import new_authority, new_certificate
from beamlit_operator.origins import HubRef, OriginError, OriginReason, fetch
from beamlit_operator.origins.fetching import arriving, web_transfer
from beamlit_operator.origins.stores import hub_xet, trust, web

REPO = "org/model"
LARGE = hashlib.shake_256(b"a large file").digest(3_000_000)
FILES = {"weights.safetensors": LARGE, "config.json": b"{}"}
TOKEN = "hf_of-this-team"


@pytest.fixture
def xet() -> Iterator[HubServer]:
    with HubServer(xet=XetStore()) as server:
        yield server


@pytest.fixture(autouse=True)
def _small_ranges(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))  # where Xet's library keeps its notes
    monkeypatch.setattr(arriving, "PART_BYTES", 400_000)
    monkeypatch.setattr(arriving, "BLOCK_BYTES", 100_000)


@pytest.fixture
def bring(tmp_path: Path) -> Callable[..., dict[str, bytes]]:
    def run(hub: HubServer, *, token: str = "", **more: str) -> dict[str, bytes]:
        credentials = {"token": token, **more} if token else more
        target = tmp_path / "model"
        ref = HubRef(REPO, endpoint=hub.endpoint)
        fetch.fetch(ref, target, credentials=credentials, report=lambda _: None)
        return {
            path.relative_to(target).as_posix(): path.read_bytes()
            for path in target.rglob("*")
            if path.is_file() and ".beamlit" not in path.parts
        }

    return run


Bring = Callable[..., dict[str, bytes]]


def asked_large(hub: HubServer) -> list[str]:
    return [each for each in hub.requests if "/large/" in each]


class TestByHttp:
    def test_a_large_file_is_asked_for_once_and_comes_in_ranges(
        self, hub: HubServer, bring: Bring
    ) -> None:
        hub.add(REPO, FILES)
        assert bring(hub) == FILES
        assert len([each for each in hub.requests if each.startswith("HEAD")]) == 1
        starts = sorted(int(each.removeprefix("bytes=").split("-")[0]) for each in hub.ranges)
        assert [start for start in starts if start] == list(range(400_000, 3_000_000, 400_000))

    def test_the_token_is_for_the_hub_and_not_for_where_it_sends_us(
        self, hub: HubServer, bring: Bring
    ) -> None:
        hub.add(REPO, FILES)
        hub.tokens.add(TOKEN)
        hub.repos[REPO].private, hub.repos[REPO].granted = True, {TOKEN}
        assert bring(hub, token=TOKEN) == FILES
        shown = {host.partition(":")[0]: set[str]() for host, _ in hub.shown}
        for host, value in hub.shown:
            shown[host.partition(":")[0]].add(value)
        assert shown == {"127.0.0.1": {f"Bearer {TOKEN}"}, "localhost": {""}}

    def test_an_address_that_is_good_no_more_is_asked_for_again(
        self, hub: HubServer, bring: Bring
    ) -> None:
        hub.add(REPO, FILES)
        hub.refusals = [(403, {})]
        assert bring(hub) == FILES
        assert len([each for each in hub.requests if each.startswith("HEAD")]) == 2

    @pytest.mark.parametrize(
        "refusals",
        [
            [(503, {})] * 3,
            [(429, {"Retry-After": "1"})],
            [(429, {"RateLimit": '"resolvers";r=0;t=1'})],
        ],
    )
    def test_a_storm_passes(
        self, hub: HubServer, bring: Bring, refusals: list[tuple[int, dict[str, str]]]
    ) -> None:
        hub.add(REPO, FILES)
        hub.refusals = list(refusals)
        assert bring(hub) == FILES
        assert not hub.refusals

    def test_a_server_that_stalls_is_left_and_asked_for_the_rest(
        self, hub: HubServer, bring: Bring, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(web, "_READ_SECONDS", 0.5)
        hub.add(REPO, FILES)
        hub.stall.add("weights.safetensors")
        assert bring(hub) == FILES

    def test_a_mirror_without_ranges_sends_whole_files(self, hub: HubServer, bring: Bring) -> None:
        hub.add(REPO, FILES)
        hub.without_ranges = True
        assert bring(hub) == FILES
        assert len(asked_large(hub)) == 1

    def test_what_arrives_with_another_digest_is_brought_once_more(
        self, hub: HubServer, bring: Bring
    ) -> None:
        hub.add(REPO, FILES)
        hub.corrupt.add("weights.safetensors")
        with pytest.raises(OriginError) as caught:
            bring(hub)
        assert caught.value.reason is OriginReason.CORRUPT
        assert len([each for each in hub.ranges if each.startswith("bytes=0-")]) > 2
        hub.corrupt.clear()
        assert bring(hub) == FILES

    def test_a_commit_that_is_gone_is_said_to_be_unknown(
        self, hub: HubServer, tmp_path: Path
    ) -> None:
        gone = hub.add(REPO, FILES)
        hub.repos[REPO].commits.pop(gone)
        with pytest.raises(OriginError) as caught:
            fetch.fetch(
                HubRef(REPO, endpoint=hub.endpoint),
                tmp_path,
                revision=gone,
                credentials={},
                report=lambda _: None,
            )
        assert caught.value.reason is OriginReason.REVISION_UNKNOWN

    def test_a_full_disk_is_told_with_the_file(
        self, hub: HubServer, bring: Bring, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(web_transfer, "write_at", full)
        hub.add(REPO, FILES)
        with pytest.raises(OriginError) as caught:
            bring(hub)
        assert caught.value.reason is OriginReason.LOCAL_DISK
        assert "No space left on device" in caught.value.message


class TestByXet:
    def test_a_file_in_xet_comes_by_xet_in_ranges_and_is_verified(
        self, xet: HubServer, bring: Bring
    ) -> None:
        xet.add(REPO, FILES)
        xet.tokens.add(TOKEN)
        xet.repos[REPO].private, xet.repos[REPO].granted = True, {TOKEN}
        assert bring(xet, token=TOKEN) == FILES
        assert xet.xet is not None
        assert len(xet.xet.asked) == 8
        assert xet.xet.sent > len(LARGE)
        assert not asked_large(xet)

    def test_a_killed_fetch_goes_on_with_what_is_missing(
        self, xet: HubServer, bring: Bring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(arriving, "PART_BYTES", 16 * 2**20)
        monkeypatch.setattr(web_transfer, "_ATTEMPTS", 1)
        xet.add(REPO, FILES)
        assert xet.xet is not None
        xet.xet.until = 1  # a third of the file
        xet.xet.refusing = lambda: any(
            len(noted.read_text().split()) >= 9 for noted in tmp_path.rglob("*.done")
        )
        with pytest.raises(OriginError):
            bring(xet)
        xet.xet.until, xet.xet.asked = 1_000, []
        assert bring(xet) == FILES
        (rest,) = [each for _, each in xet.xet.asked]
        assert int(rest.removeprefix("bytes=").split("-")[0]) >= 900_000

    def test_plain_http_takes_over_when_xets_store_fails(
        self, xet: HubServer, bring: Bring
    ) -> None:
        xet.add(REPO, FILES)
        assert xet.xet is not None
        xet.xet.until = 0
        assert bring(xet) == FILES
        assert asked_large(xet)

    def test_what_xet_brings_wrong_is_brought_by_plain_http(
        self, xet: HubServer, bring: Bring
    ) -> None:
        xet.add(REPO, FILES)
        assert xet.xet is not None
        xet.xet.corrupt = True
        assert bring(xet) == FILES
        assert xet.xet.sent
        assert asked_large(xet)

    def test_a_token_is_not_asked_for_at_another_host(self, xet: HubServer, bring: Bring) -> None:
        xet.add(REPO, FILES)
        xet.tokens.add(TOKEN)
        xet.xet_tokens_elsewhere = True
        assert bring(xet, token=TOKEN) == FILES
        assert not any("xet-read-token" in each for each in xet.requests)
        assert not any(given for host, given in xet.shown if host.startswith("localhost"))

    def test_it_can_be_switched_off(
        self, xet: HubServer, bring: Bring, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        xet.add(REPO, FILES)
        assert bring(xet) == FILES
        assert xet.xet is not None
        assert not xet.xet.asked

    def test_authorities_of_ones_own_are_not_known_to_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert hub_xet.is_usable({})
        assert not hub_xet.is_usable({trust.AUTHORITIES: "..."})
        monkeypatch.setenv("BEAMLIT_CA_FILE", "/etc/ours.pem")
        assert not hub_xet.is_usable({})


class TestWhereNothingArrives:
    def test_a_name_without_an_address_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(OriginError) as caught:
            fetch.look(HubRef(REPO, endpoint="http://hub.invalid"), {})
        assert caught.value.reason is OriginReason.UNREACHABLE
        assert "its host name has no address" in caught.value.message

    def test_offline_means_that_nobody_is_asked(
        self, hub: HubServer, bring: Bring, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        commit = hub.add(REPO, FILES)
        assert bring(hub) == FILES
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        before = len(hub.requests)
        ref = HubRef(REPO, endpoint=hub.endpoint)
        there = fetch.fetch(
            ref, tmp_path / "model", revision=commit, credentials={}, report=lambda _: None
        )
        assert there.files == 0
        with pytest.raises(OriginError) as caught:
            bring(hub)
        assert "HF_HUB_OFFLINE" in caught.value.message
        assert len(hub.requests) == before

    def test_patterns_that_let_nothing_through_are_shown_with_what_is_there(
        self, hub: HubServer
    ) -> None:
        hub.add(REPO, FILES)
        ref = HubRef(REPO, endpoint=hub.endpoint, allow_patterns=("*.gguf", "["))
        with pytest.raises(OriginError) as caught:
            fetch.look(ref, {})
        assert caught.value.reason is OriginReason.NO_OBJECTS
        assert "allowPatterns (*.gguf, [)" in caught.value.message
        assert "config.json, weights.safetensors" in caught.value.message


def test_a_hub_is_trusted_by_the_authorities_of_its_own_origin_only(
    tmp_path: Path, bring: Bring
) -> None:
    now = datetime.now(UTC)
    signer = new_authority(now)
    pair = new_certificate(signer, names=["127.0.0.1", "localhost"], now=now)
    chain = tmp_path / "chain"
    chain.write_bytes(pair.certificate + pair.key)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(chain)
    with HubServer(tls=tls) as hub:
        hub.add(REPO, FILES)
        assert bring(hub, **{trust.AUTHORITIES: signer.certificate.decode()}) == FILES
        with pytest.raises(OriginError) as caught:
            fetch.look(HubRef(REPO, endpoint=hub.endpoint), {})
        assert caught.value.reason is OriginReason.UNREACHABLE
        assert "caConfigMapRef" in caught.value.message
