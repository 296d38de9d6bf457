"""Files that revisions share: which pods get them from a claim, and that no name changes by it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import kubernetes_validate
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.workloads.test_native import FILES, MODEL, SETTINGS, deployment, held_to, running

from beamlit_operator.workloads import ModelFiles, Workload, workload
from beamlit_operator.workloads.cache import Cache, Place, identity, place_of, with_cache
from beamlit_operator.workloads.pods import fetching_container

HERE, GONE = Cache("shared", usable=True), Cache("shared", usable=False)
WRITING = {"name": "models", "mountPath": "/mnt/models"}


def made(
    spec: dict[str, Any] | None = None,
    *,
    cache: Cache | None = None,
    live: dict[str, Any] | None = None,
    files: ModelFiles = FILES,
) -> Workload:
    result = workload(
        deployment(**(spec or {})),
        MODEL,
        policy=held_to(),
        files=files,
        settings=SETTINGS,
        live=live,
        cache=cache,
    )
    assert isinstance(result, Workload), result
    return result


def pod(result: Workload) -> dict[str, Any]:
    spec: dict[str, Any] = result.deployment["spec"]["template"]["spec"]
    return spec


def live(result: Workload, *, replicas: int, ready: int = 0) -> dict[str, Any]:
    found = running(result, replicas)
    found[result.revision]["status"] = {"replicas": replicas, "readyReplicas": ready}
    return found


def template(**spec: Any) -> dict[str, Any]:
    return {"podTemplate": {"spec": spec}}


def test_the_fetcher_gets_the_volume_and_the_server_its_folder_read_only() -> None:
    result = made(cache=HERE)
    place = place_of(pod(result))
    assert place is not None
    assert place.claim == "shared"
    (fetcher,) = pod(result)["initContainers"]
    assert fetcher["args"][:3] == ["fetch", FILES.uri, f"/mnt/cache/{place.identity}"]
    assert fetcher["args"][-1] == "--shared"
    assert {"name": "models", "mountPath": "/mnt/cache"} in fetcher["volumeMounts"]
    (server,) = pod(result)["containers"]
    (mount,) = [each for each in server["volumeMounts"] if each["name"] == "models"]
    assert mount == {
        "name": "models",
        "mountPath": "/mnt/models",
        "readOnly": True,
        "subPath": place.identity,
    }
    claim = {"name": "models", "persistentVolumeClaim": {"claimName": "shared"}}
    assert [each for each in pod(result)["volumes"] if each["name"] == "models"] == [claim]
    kubernetes_validate.validate(result.deployment, "1.34", strict=True)


def test_no_name_changes_and_nobody_is_restarted_when_a_cache_appears_or_goes() -> None:
    plain, cached = made(), made(cache=HERE)
    assert plain.revision == cached.revision
    assert plain.deployment != cached.deployment
    for ready in (0, 1):
        there = live(plain, replicas=1, ready=ready)
        assert made(cache=HERE, live=there).deployment == plain.deployment


@pytest.mark.parametrize(
    ("replicas", "ready", "before", "cache", "with_it"),
    [
        (0, 0, None, HERE, True),
        (0, 0, HERE, HERE, True),
        (0, 0, HERE, GONE, False),
        (0, 0, HERE, None, False),
        (0, 0, None, GONE, False),
        (1, 0, None, HERE, False),
        (1, 1, None, HERE, False),
        (1, 0, HERE, HERE, True),
        (1, 0, HERE, None, True),
        (1, 0, HERE, Cache("another", usable=False), True),
        (1, 0, HERE, Cache("another", usable=True), True),
        (2, 2, HERE, GONE, True),
        (2, 1, HERE, GONE, False),
    ],
)
def test_the_table_of_the_module(
    replicas: int, ready: int, before: Cache | None, cache: Cache | None, with_it: bool
) -> None:
    there = live(made(cache=before), replicas=replicas, ready=ready)
    place = place_of(pod(made(cache=cache, live=there)))
    assert (place is not None) is with_it
    if with_it:
        assert place == place_of(pod(made(cache=HERE)))


@pytest.mark.parametrize(
    "spec",
    [
        template(volumes=[{"name": "models", "emptyDir": {"medium": "Memory"}}]),
        template(volumes=[{"name": "models", "emptyDir": {"sizeLimit": "1Gi"}}]),
        template(
            volumes=[
                {"name": "models", "emptyDir": None, "persistentVolumeClaim": {"claimName": "x"}}
            ]
        ),
        template(initContainers=[{"name": "convert", "image": "x", "volumeMounts": [WRITING]}]),
        template(containers=[{"name": "model", "volumeMounts": [{**WRITING, "readOnly": False}]}]),
        template(containers=[{"name": "log", "image": "x", "volumeMounts": [WRITING]}]),
        template(initContainers=[{"name": "fetch", "args": ["version"]}]),
        template(
            containers=[
                {
                    "name": "look",
                    "image": "x",
                    "volumeMounts": [
                        {**WRITING, "readOnly": True, "subPathExpr": "$(POD)", "mountPath": "/l"}
                    ],
                }
            ]
        ),
        template(initContainers=[{"name": "fetch", "image": "ours:older"}]),
        template(initContainers=[{"name": "fetch", "command": ["sh", "-c", "poison /mnt/cache"]}]),
        template(initContainers=[{"name": "fetch", "envFrom": [{"configMapRef": {"name": "x"}}]}]),
        template(
            initContainers=[{"name": "fetch", "volumeMounts": [{**WRITING, "subPath": "mine"}]}]
        ),
    ],
)
def test_whoever_says_where_files_are_or_writes_them_has_a_volume_of_their_own(
    spec: dict[str, Any],
) -> None:
    assert made(spec, cache=HERE).deployment == made(spec).deployment


def test_containers_of_the_users_read_the_same_folder() -> None:
    reading = {"name": "models", "mountPath": "/look", "readOnly": True, "subPath": "tokenizer"}
    spec = template(containers=[{"name": "look", "image": "x", "volumeMounts": [reading]}])
    result = made(spec, cache=HERE)
    place = place_of(pod(result))
    assert place is not None
    (look,) = [each for each in pod(result)["containers"] if each["name"] == "look"]
    assert look["volumeMounts"] == [{**reading, "subPath": f"{place.identity}/tokenizer"}]


def test_equal_files_are_one_folder_whoever_serves_them() -> None:
    once = place_of(pod(made(cache=HERE)))
    again = place_of(pod(made({"runtime": {"type": "triton"}}, cache=HERE)))
    assert once == again
    assert made({"runtime": {"type": "triton"}}).revision != made().revision


OTHER_FILES = [
    {"uri": "s3://models/other"},
    {"revision": "sha256:" + "cd" * 32},
    {"endpoint": "http://127.0.0.1:9001"},
    {"allow_patterns": ("*.json",)},
    {"ignore_patterns": ("*.json",)},
    {"allow_pickle": True},
]


@pytest.mark.parametrize("change", OTHER_FILES)
def test_other_files_are_another_folder(change: dict[str, Any]) -> None:
    other = made(cache=HERE, files=replace(FILES, **change))
    assert place_of(pod(other)) != place_of(pod(made(cache=HERE)))


def test_another_region_or_secret_is_the_same_folder() -> None:
    other = replace(FILES, region="eu-west-1", secrets=())
    assert place_of(pod(made(cache=HERE, files=other))) == place_of(pod(made(cache=HERE)))


TEXT = st.text(st.sampled_from("abc*/"), min_size=1, max_size=4)
ANY_FILES = st.builds(
    ModelFiles,
    uri=st.sampled_from(["s3://b/p", "hf://o/n"]),
    revision=st.sampled_from(["1" * 40, "2" * 40]),
    paths=st.just(("model.joblib",)),
    endpoint=st.none() | st.just("http://h"),
    allow_patterns=st.lists(TEXT, max_size=2).map(tuple),
    ignore_patterns=st.lists(TEXT, max_size=2).map(tuple),
    allow_pickle=st.booleans(),
)


@given(ANY_FILES, ANY_FILES)
def test_two_folders_are_the_same_if_and_only_if_the_same_is_fetched(
    one: ModelFiles, other: ModelFiles
) -> None:
    def folder(files: ModelFiles) -> str | None:
        return identity(fetching_container(files, image="x"))

    assert folder(one) is not None
    assert (folder(one) == folder(other)) is (one == other)


@given(ANY_FILES)
def test_a_pod_that_was_moved_says_where_to_and_is_moved_once(files: ModelFiles) -> None:
    plain = pod(made(files=files))
    moved = pod(made(files=files, cache=HERE))
    (fetcher,) = plain["initContainers"]
    assert place_of(moved) == Place("shared", identity(fetcher) or "")
    assert place_of(plain) is None
    assert with_cache(moved, cache=HERE, image=SETTINGS.image) == moved
