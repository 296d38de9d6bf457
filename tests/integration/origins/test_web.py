"""Files of web servers: what is asked of them, and what they get to know."""

from __future__ import annotations

import hashlib
import ipaddress
import random
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.support.webstore import WebStore

from beamlit_operator.controllers.admission.certificates import new_authority, new_certificate
from beamlit_operator.origins import OriginError, OriginReason, WebFile, WebRef, read
from beamlit_operator.origins.fetch import Fetched, fetch
from beamlit_operator.origins.fetching import arriving, web_transfer
from beamlit_operator.origins.kinds import look
from beamlit_operator.origins.stores import addresses, trust, web

CONTENT = random.Random(2).randbytes(1_000_000)
TOKEN = {"token": "token-example"}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arriving, "PART_BYTES", 200_000)
    monkeypatch.setattr(arriving, "BLOCK_BYTES", 50_000)
    monkeypatch.setattr(web, "_LOOK_ATTEMPTS", 1)


@pytest.fixture
def store() -> Iterator[WebStore]:
    with WebStore(files={"m/weights.gguf": CONTENT, "m/config.json": b"{}"}) as running:
        yield running


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def ref(store: WebStore, **digests: str) -> WebRef:
    return WebRef(
        (
            WebFile(
                store.url("m/weights.gguf"), digests.get("weights", digest(CONTENT)), "w/model.gguf"
            ),
            WebFile(store.url("m/config.json"), digest(b"{}")),
        )
    )


def fetched(store: WebRef, into: Path, **more: Any) -> Fetched:
    return fetch(store, into, **({"credentials": {}, "report": lambda line: None} | more))


def failure(store: WebRef, into: Path, **more: Any) -> OriginError:
    with pytest.raises(OriginError) as caught:
        fetched(store, into, **more)
    assert "token-example" not in str(caught.value)
    assert not (into / "w").exists()
    assert not (into / ".beamlit" / "published.json").exists()
    return caught.value


def holds(into: Path) -> bool:
    return (into / "w/model.gguf").read_bytes() == CONTENT and (
        into / "config.json"
    ).read_bytes() == b"{}"


class TestAnswers:
    def test_sizes_are_asked_for_and_the_revision_is_the_digests(self, store: WebStore) -> None:
        found = look(ref(store), {})
        assert {file.path: file.size for file in found.files} == {
            "w/model.gguf": len(CONTENT),
            "config.json": 2,
        }
        assert found.revision == ref(store).revision
        assert {each.method for each in store.asked} == {"HEAD"}

    def test_a_server_without_head_is_asked_for_one_byte(self, store: WebStore) -> None:
        store.head = False
        assert look(ref(store), {}).bytes == len(CONTENT) + 2
        assert {each.range for each in store.gets} == {"bytes=0-0"}

    def test_an_empty_file_is_a_file(self, store: WebStore, tmp_path: Path) -> None:
        store.files["empty"] = b""
        fetched(WebRef((WebFile(store.url("empty"), digest(b"")),)), tmp_path)
        assert (tmp_path / "empty").read_bytes() == b""

    def test_a_server_that_tells_no_size_is_refused(self, store: WebStore) -> None:
        store.sized = store.ranges = False
        with pytest.raises(OriginError, match="Content-Length"):
            look(ref(store), {})

    def test_what_fails_for_a_moment_is_asked_again(
        self, store: WebStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(web, "_LOOK_ATTEMPTS", 2)
        store.head, store.refuse = False, [500]
        assert look(ref(store), {}).bytes == len(CONTENT) + 2

    def test_many_files_are_asked_for_at_once(self, store: WebStore) -> None:
        store.files |= {f"many/{n}": bytes(n + 1) for n in range(50)}
        files = tuple(WebFile(store.url(f"many/{n}"), digest(bytes(n + 1))) for n in range(50))
        assert [f.size for f in look(WebRef(files), {}).files if f.path in ("0", "49")] == [1, 50]

    @pytest.mark.parametrize(
        ("status", "credentials", "reason"),
        [
            (401, {}, OriginReason.ACCESS_DENIED),
            (401, TOKEN, OriginReason.CREDENTIALS_INVALID),
            (403, {}, OriginReason.ACCESS_DENIED),
            (404, {}, OriginReason.NO_OBJECTS),
            (410, {}, OriginReason.NO_OBJECTS),
            (429, {}, OriginReason.RATE_LIMITED),
            (503, {}, OriginReason.RATE_LIMITED),
            (500, {}, OriginReason.UNREACHABLE),
        ],
    )
    def test_an_answer_has_a_reason(
        self, store: WebStore, status: int, credentials: dict[str, str], reason: OriginReason
    ) -> None:
        store.head, store.retry_after, store.refuse = False, "7", [status] * 20
        with pytest.raises(OriginError) as caught:
            look(WebRef((WebFile(store.url("m/config.json"), digest(b"{}")),)), credentials)
        assert caught.value.reason is reason
        if reason is OriginReason.RATE_LIMITED:
            assert caught.value.retry_after_seconds == 7

    def test_a_server_that_asks_for_a_day_is_looked_at_after_15_minutes(
        self, store: WebStore
    ) -> None:
        store.head, store.retry_after, store.refuse = False, "86400", [429] * 20
        with pytest.raises(OriginError) as caught:
            look(WebRef((WebFile(store.url("m/config.json"), digest(b"{}")),)), {})
        assert caught.value.retry_after_seconds == 900

    def test_a_part_of_a_file_is_read(self, store: WebStore) -> None:
        file = look(ref(store), {}).files[1]
        for store.ranges in (True, False):
            assert read(ref(store), {}, file, 300_000, 10) == CONTENT[300_000:300_010]


class TestCredentials:
    @pytest.mark.parametrize(
        ("credentials", "sent"),
        [
            (TOKEN, "Bearer token-example"),
            ({"username": "me", "password": "pässword"}, "Basic bWU6cMOkc3N3b3Jk"),
        ],
    )
    def test_they_are_sent_to_the_urls_host(
        self, store: WebStore, tmp_path: Path, credentials: dict[str, str], sent: str
    ) -> None:
        store.authorization = sent
        fetched(ref(store), tmp_path, credentials=credentials)
        assert holds(tmp_path)

    def test_a_redirect_takes_them_to_no_other_host_and_not_back(
        self, store: WebStore, tmp_path: Path
    ) -> None:
        with WebStore(files={"cdn/weights.gguf": CONTENT}, address="127.0.0.2") as other:
            other.redirects["away"] = store.url("back")
            store.redirects = {
                "m/weights.gguf": other.url("cdn/weights.gguf"),
                "m/config.json": other.url("away"),
                "back": store.url("m/config2.json"),
            }
            store.files["m/config2.json"] = b"{}"
            fetched(ref(store), tmp_path, credentials=TOKEN)
            assert holds(tmp_path)
            assert {each.authorization for each in other.asked} == {None}
            sent = {each.path: each.authorization for each in store.asked}
        assert sent["m/weights.gguf"] == "Bearer token-example"
        assert sent["back"] is None
        assert sent["m/config2.json"] is None

    def test_a_redirect_on_the_same_host_keeps_them(self, store: WebStore, tmp_path: Path) -> None:
        store.redirects["m/weights.gguf"] = "/elsewhere"
        store.files["elsewhere"] = CONTENT
        store.authorization = "Bearer token-example"
        fetched(ref(store), tmp_path, credentials=TOKEN)
        assert holds(tmp_path)

    def test_another_port_is_another_host(self, store: WebStore, tmp_path: Path) -> None:
        with WebStore(files={"config.json": b"{}"}) as other:
            store.redirects["m/config.json"] = other.url("config.json")
            fetched(ref(store), tmp_path, credentials=TOKEN)
            assert {each.authorization for each in other.asked} == {None}

    def test_a_token_that_no_header_can_hold_is_no_surprise(
        self, store: WebStore, tmp_path: Path
    ) -> None:
        error = failure(ref(store), tmp_path, credentials={"token": "a\nHost: b"})
        assert error.reason is OriginReason.CREDENTIALS_INVALID
        assert not store.asked


class TestRedirects:
    def test_five_are_followed_and_six_are_not(self, store: WebStore, tmp_path: Path) -> None:
        store.redirects = {f"r{n}": f"/r{n + 1}" for n in range(1, 6)} | {"r6": "/m/config.json"}
        five = WebRef((WebFile(store.url("r2"), digest(b"{}"), "config.json"),))
        fetched(five, tmp_path)
        six = WebRef((WebFile(store.url("r1"), digest(b"{}"), "config.json"),))
        with pytest.raises(OriginError, match="more than 5 redirects"):
            look(six, {})

    @pytest.mark.parametrize(
        "target", ["http://169.254.169.254/latest/", "http://[fe80::1]/", "http://[fd00:ec2::254]/"]
    )
    def test_none_leads_to_a_clouds_metadata(self, store: WebStore, target: str) -> None:
        store.redirects["m/config.json"] = target
        for url in (target, store.url("m/config.json")):
            with pytest.raises(OriginError, match="link-local") as caught:
                look(WebRef((WebFile(url, digest(b""), "x"),)), {})
            assert caught.value.stalled

    def test_a_name_that_leads_there_is_not_asked(
        self, store: WebStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # As if the address of the test's own server were one of those.
        monkeypatch.setattr(addresses, "_REFUSED", (ipaddress.ip_network("127.0.0.1/32"),))
        url = store.url("m/config.json").replace("127.0.0.1", "localhost")
        with pytest.raises(OriginError, match="localhost is a link-local address"):
            look(WebRef((WebFile(url, digest(b"{}")),)), {})
        assert not store.asked

    def test_who_does_not_answer_is_the_one_that_is_named(self, store: WebStore) -> None:
        store.redirects["m/config.json"] = "http://content.invalid/m?signature=secret"
        with pytest.raises(OriginError, match=r"http://content\.invalid/m cannot be reached") as no:
            look(WebRef((WebFile(store.url("m/config.json"), digest(b"{}")),)), {})
        assert "secret" not in no.value.message

    @pytest.mark.parametrize("target", ["ftp://example.com/x", "file:///etc/passwd", ""])
    def test_none_leads_to_what_is_no_web_server(self, store: WebStore, target: str) -> None:
        store.redirects["m/config.json"] = target
        with pytest.raises(OriginError, match="redirects"):
            look(WebRef((WebFile(store.url("m/config.json"), digest(b"")),)), {})


class TestTransfer:
    def test_large_files_arrive_in_parts(self, store: WebStore, tmp_path: Path) -> None:
        done = fetched(ref(store), tmp_path)
        assert holds(tmp_path)
        assert done.revision == ref(store).revision
        assert (done.files, done.bytes) == (2, len(CONTENT) + 2)
        assert len({each.range for each in store.gets if "weights" in each.path}) == 5
        assert fetched(ref(store), tmp_path, revision=done.revision).files == 0

    def test_a_server_without_ranges_is_asked_once(self, store: WebStore, tmp_path: Path) -> None:
        store.ranges = False
        fetched(ref(store), tmp_path)
        assert holds(tmp_path)
        assert len(store.gets) == 2

    @pytest.mark.parametrize("ranges", [True, False])
    def test_what_breaks_off_goes_on(self, store: WebStore, tmp_path: Path, ranges: bool) -> None:
        store.ranges, store.cut_at = ranges, [60_000, 10, 120_000, 0]
        fetched(ref(store), tmp_path)
        assert holds(tmp_path)

    def test_a_server_that_always_breaks_off_is_given_up(
        self, store: WebStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(web_transfer, "_ATTEMPTS", 2)
        store.ranges, store.cut_at = False, [70_000] * 100
        assert failure(ref(store), tmp_path).reason is OriginReason.UNREACHABLE
        assert len(store.gets) < 10

    def test_a_server_that_stalls_is_asked_again(
        self, store: WebStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(web, "_READ_SECONDS", 0.5)
        store.stall_at = [1000, 0]
        fetched(ref(store), tmp_path)
        assert holds(tmp_path)

    def test_a_storm_passes(self, store: WebStore, tmp_path: Path) -> None:
        store.refuse, store.retry_after = [429, 503, 502], "1"
        fetched(ref(store), tmp_path)
        assert holds(tmp_path)

    def test_a_storm_that_does_not_pass_ends_the_fetch(
        self, store: WebStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(web_transfer, "_ATTEMPTS", 2)
        store.refuse, store.retry_after = [429] * 100, "1"
        assert failure(ref(store), tmp_path).reason is OriginReason.RATE_LIMITED

    def test_other_content_is_never_published(self, store: WebStore, tmp_path: Path) -> None:
        wrong = digest(b"other")
        error = failure(ref(store, weights=wrong), tmp_path)
        assert error.reason is OriginReason.CORRUPT
        assert digest(CONTENT) in error.message
        assert wrong[:12] in error.message
        # And nothing of it is taken for good the next time.
        assert failure(ref(store, weights=wrong), tmp_path).reason is OriginReason.CORRUPT
        fetched(ref(store), tmp_path)
        assert holds(tmp_path)

    def test_a_file_that_changes_its_size_is_never_published(
        self, store: WebStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = look(ref(store), {})
        store.files["m/weights.gguf"] = CONTENT + b"more"
        monkeypatch.setattr("beamlit_operator.origins.fetch.look", lambda *_: before)
        error = failure(ref(store), tmp_path)
        assert error.reason is OriginReason.CORRUPT
        assert "1000004 bytes now and had 1000000" in error.message

    def test_an_interrupted_fetch_goes_on(
        self, store: WebStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(web_transfer, "_ATTEMPTS", 1)
        weights = WebRef(ref(store).files[:1])
        store.cut_at = [60_000]  # after the first block of the first part
        failure(weights, tmp_path)
        store.asked.clear()
        fetched(weights, tmp_path)
        assert (tmp_path / "w/model.gguf").read_bytes() == CONTENT
        assert "bytes=0-199999" not in {each.range for each in store.gets}

    def test_an_interrupted_fetch_starts_again_where_there_are_no_ranges(
        self, store: WebStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(web_transfer, "_ATTEMPTS", 1)
        store.ranges, store.cut_at = False, [120_000, 120_000]
        failure(ref(store), tmp_path)
        store.cut_at.clear()
        fetched(ref(store), tmp_path)
        assert holds(tmp_path)

    def test_files_that_moved_to_another_server_are_the_same(
        self, store: WebStore, tmp_path: Path
    ) -> None:
        fetched(ref(store), tmp_path)
        with WebStore(files=store.files) as other:
            assert fetched(ref(other), tmp_path, revision=ref(store).revision).files == 0
            assert not other.asked


class TestWayOut:
    @pytest.fixture
    def secure(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[WebStore, str]]:
        """A server behind TLS, and the certificate of who signed its own."""
        now = datetime.now(UTC)
        signer = new_authority(now)
        pair = new_certificate(signer, names=["127.0.0.1"], now=now)
        chain = tmp_path_factory.mktemp("tls") / "chain"
        chain.write_bytes(pair.certificate + pair.key)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(chain)
        with WebStore(files={"m/weights.gguf": CONTENT, "m/config.json": b"{}"}) as plain:
            store = WebStore(files=plain.files, context=context)
            with store:
                store.redirects["down"] = plain.url("m/config.json")
                yield store, signer.certificate.decode()
            assert {each.authorization for each in plain.asked} <= {None}

    def test_authorities_of_ones_own_are_trusted_for_this_origin_only(
        self, secure: tuple[WebStore, str], tmp_path: Path
    ) -> None:
        store, signer = secure
        fetched(ref(store), tmp_path, credentials=TOKEN | {trust.AUTHORITIES: signer})
        assert holds(tmp_path)
        with pytest.raises(OriginError, match=r"is not trusted .* caConfigMapRef"):
            look(ref(store), {})

    def test_a_redirect_from_https_to_http_brings_no_credentials(
        self, secure: tuple[WebStore, str], tmp_path: Path
    ) -> None:
        store, signer = secure
        down = WebRef((WebFile(store.url("down"), digest(b"{}"), "config.json"),))
        fetched(down, tmp_path, credentials=TOKEN | {trust.AUTHORITIES: signer})
        assert {each.authorization for each in store.asked} == {"Bearer token-example"}

    def test_servers_outside_are_reached_through_the_proxy_and_others_without(
        self, store: WebStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("no_proxy", ".svc,127.0.0.1")
        monkeypatch.setenv("http_proxy", store.endpoint)
        # Nobody has that name: only what stands for the proxy can answer.
        url = "http://files.invalid/m/config.json"
        fetched(WebRef((WebFile(url, digest(b"{}")),)), tmp_path / "outside")
        # Nobody listens at that proxy: only who does not ask it gets an answer.
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        fetched(ref(store), tmp_path / "inside")
        assert holds(tmp_path / "inside")
