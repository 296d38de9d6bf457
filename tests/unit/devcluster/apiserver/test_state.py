"""The store, its history and its journal; names, selectors and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from beamlit_operator.devcluster.apiserver import ApiServer
from beamlit_operator.devcluster.apiserver.journal import FileJournal
from beamlit_operator.devcluster.apiserver.selectors import label_matcher, matches_selector
from beamlit_operator.devcluster.apiserver.store import HISTORY, Key, Store
from beamlit_operator.devcluster.apiserver.tables import _short, evaluate
from beamlit_operator.devcluster.apiserver.watch import BACKLOG, Watch
from beamlit_operator.kube import (
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    ApiError,
    Resource,
)


def _item(name: str, **more: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "n", "uid": name}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, **more}


def _put(store: Store, name: str, **more: Any) -> None:
    store.commit("configmaps", Key("n", name), _item(name, **more))


def test_history_reaches_back_a_bounded_number_of_events() -> None:
    store = Store()
    for number in range(HISTORY + 10):
        _put(store, "x", data={"n": str(number)})
    collection = store.collection("configmaps")
    assert len(collection.since(store.version - 5)) == 5
    assert len(collection.history) == HISTORY
    with pytest.raises(ApiError) as caught:
        collection.since(2)
    assert caught.value.gone


def test_a_watch_of_another_kind_survives_a_busy_one() -> None:
    store = Store()
    quiet = store.collection("secrets")
    for number in range(HISTORY + 10):
        _put(store, "x", data={"n": str(number)})
    assert quiet.since(1) == []


async def test_a_watcher_that_does_not_read_is_dropped() -> None:
    store = Store()
    watch = Watch(
        store,
        store.collection("configmaps"),
        namespace=None,
        matcher=None,
        version=None,
        timeout=60,
        bookmarks=False,
    )
    for number in range(BACKLOG + 1):
        _put(store, "x", data={"n": str(number)})
    assert watch.dropped
    assert [batch async for batch in watch.batches()] == []
    assert not store.collection("configmaps").listeners


def test_the_journal_brings_everything_back(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path / "journal")
    store = Store(journal)
    journal.open(store)
    _put(store, "a", data={"k": "line\nbreak é"})
    _put(store, "b")
    _put(store, "a", data={"k": "2"})
    _put(store, "system: a\nb", data={})
    store.remove("configmaps", Key("n", "system: a\nb"))
    _put(store, "x y%", data={"k": "3"})
    store.remove("configmaps", Key("n", "b"))
    journal.close()
    again = Store()
    reopened = FileJournal(tmp_path / "journal")
    reopened.open(again)
    reopened.close()
    assert again.version == store.version
    objects = again.collection("configmaps").objects
    assert {key.name: entry.obj["data"] for key, entry in objects.items()} == {
        "a": {"k": "2"},
        "x y%": {"k": "3"},
    }
    with pytest.raises(ApiError) as caught:
        again.collection("configmaps").since(store.version - 1)
    assert caught.value.gone


def test_a_journal_in_use_does_not_grow_without_bound(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = FileJournal(path, largest=2000)
    store = Store(journal)
    journal.open(store)
    for number in range(500):
        _put(store, "a", data={"n": str(number)})
    _put(store, "b")
    journal.close()
    assert path.stat().st_size < 4000
    again = Store()
    reopened = FileJournal(path)
    reopened.open(again)
    reopened.close()
    objects = again.collection("configmaps").objects
    assert again.version == store.version
    assert objects[Key("n", "a")].obj["data"] == {"n": "499"}
    assert Key("n", "b") in objects


def test_a_torn_last_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = FileJournal(path)
    store = Store(journal)
    journal.open(store)
    _put(store, "a")
    _put(store, "b")
    journal.close()
    path.write_bytes(path.read_bytes()[:-7])
    again = Store()
    reopened = FileJournal(path)
    reopened.open(again)
    reopened.close()
    assert [key.name for key in again.collection("configmaps").objects] == ["a"]


async def test_a_server_continues_where_it_was(tmp_path: Path) -> None:
    first = ApiServer(tmp_path)
    await first.start()
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Cluster",
            "names": {"plural": "things", "kind": "Thing"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "x-kubernetes-preserve-unknown-fields": True,
                        }
                    },
                }
            ],
        },
    }
    things = Resource("example.com", "v1", "things", "Thing", namespaced=False)
    await first.client.create(CUSTOM_RESOURCE_DEFINITIONS, definition)
    body = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "x"}, "size": 3}
    made = await first.client.create(things, body)
    config = first.kubeconfig(tmp_path / "kubeconfig")
    assert config.stat().st_mode & 0o777 == 0o600
    await first.stop()
    second = ApiServer(tmp_path)
    await second.start()
    assert await second.client.get(things, "x") == made
    changed = await second.client.merge_patch(things, "x", {"size": 4})
    before, after = (int(i["metadata"]["resourceVersion"]) for i in (made, changed))
    assert after > before
    await second.stop()


async def test_the_server_listens_on_the_loopback_interface_only(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="loopback"):
        await ApiServer(tmp_path).start("0.0.0.0")


async def test_what_a_client_does_to_its_answer_does_not_reach_the_store(tmp_path: Path) -> None:
    server = ApiServer(tmp_path)
    await server.start()
    body = {"metadata": {"name": "one"}, "data": {"a": "1"}}
    made = await server.client.create(CONFIG_MAPS, body, "default")
    made["data"]["a"] = "spoilt"
    body["data"]["a"] = "spoilt"  # type: ignore[index]
    found = await server.client.get(CONFIG_MAPS, "one", "default")
    found["metadata"]["name"] = "spoilt"
    listed = await server.client.list(CONFIG_MAPS, "default")
    data = {item["metadata"]["name"]: item["data"] for item in listed.items}
    assert data["one"] == {"a": "1"}
    await server.stop()


@pytest.mark.parametrize(
    ("selector", "labels", "selected"),
    [
        ("a=b", {"a": "b"}, True),
        ("a!=b", {}, True),
        ("a notin (b,c)", {"a": "d"}, True),
        ("a,!b", {"a": "x"}, True),
        ("n>3", {"n": "10"}, True),
        ("n<3", {"n": "10"}, False),
        ("a in (b)", {}, False),
    ],
)
def test_label_selectors(selector: str, labels: dict[str, str], selected: bool) -> None:
    matcher = label_matcher(selector)
    assert matcher is not None
    assert matcher({"metadata": {"labels": labels}}) is selected


def test_selector_objects_combine_all_terms() -> None:
    selector = {
        "matchLabels": {"a": "b"},
        "matchExpressions": [{"key": "c", "operator": "NotIn", "values": ["d"]}],
    }
    assert matches_selector(selector, {"a": "b"})
    assert not matches_selector(selector, {"a": "b", "c": "d"})
    assert matches_selector({}, {})
    assert not matches_selector(None, {})


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (5, "5s"),
        (119, "119s"),
        (125, "2m5s"),
        (660, "11m"),
        (7200, "120m"),
        (10900, "3h1m"),
        (90000, "25h"),
        (260000, "3d"),
        (800000, "9d"),
        (70000000, "2y80d"),
    ],
)
def test_ages_are_short(seconds: int, text: str) -> None:
    assert _short(seconds) == text


@pytest.mark.parametrize(
    ("path", "values"),
    [
        (".a.b", [1]),
        (".missing", []),
        (".l[0].t", ["x"]),
        (".l[*].t", ["x", "y"]),
        ('.l[?(@.t=="y")].v', [2]),
        (".m.a\\.b", [3]),
        (".m['a.b']", [3]),
    ],
)
def test_json_paths_of_columns(path: str, values: list[Any]) -> None:
    item = {"a": {"b": 1}, "l": [{"t": "x", "v": 1}, {"t": "y", "v": 2}], "m": {"a.b": 3}}
    assert evaluate(path, item) == values
