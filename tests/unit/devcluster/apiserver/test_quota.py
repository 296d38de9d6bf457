"""Quantities, what a pod uses, and that the count of a quota never goes astray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamlit_operator.devcluster.apiserver import ApiServer
from beamlit_operator.devcluster.apiserver.admission import Steps
from beamlit_operator.devcluster.apiserver.amounts import Amount
from beamlit_operator.devcluster.apiserver.api import Api
from beamlit_operator.devcluster.apiserver.pod_resources import of_pod
from beamlit_operator.devcluster.apiserver.quota import Quotas
from beamlit_operator.devcluster.apiserver.quota_usage import in_scope, usage
from beamlit_operator.devcluster.apiserver.served import Registry
from beamlit_operator.devcluster.apiserver.store import Key, Store
from beamlit_operator.kube import SECRETS, ApiError, Json, Resource

QUOTAS = Resource("", "v1", "resourcequotas", "ResourceQuota")


@pytest.mark.parametrize(
    ("terms", "total"),
    [
        (["200Mi", "56Mi"], "256Mi"),
        (["512Mi", "512Mi"], "1Gi"),
        (["100m", "900m"], "1"),
        (["1", "500m"], "1500m"),
        (["0", "1Gi"], "1Gi"),
        (["200M"], "200M"),
        (["1000"], "1k"),
        (["1Gi", "1"], "1073741825"),
        (["1.5Gi"], "1536Mi"),
        (["0.1"], "100m"),
        ([], "0"),
    ],
)
def test_sums_are_written_as_kubernetes_writes_them(terms: list[str], total: str) -> None:
    found = Amount.of("0")
    for term in terms:
        found = found + Amount.of(term)
    assert str(found) == total


@given(
    st.integers(-(10**6), 10**6),
    st.sampled_from(["", "m", "k", "M", "G", "Ki", "Mi", "Gi", "u"]),
)
def test_a_quantity_reads_back_as_itself(number: int, suffix: str) -> None:
    amount = Amount.of(f"{number}{suffix}")
    assert Amount.of(str(amount)).value == amount.value


def _container(name: str, cpu: str = "", **more: Any) -> Json:
    return {"name": name, "resources": {"requests": {"cpu": cpu}} if cpu else {}, **more}


def test_init_containers_run_one_after_the_other_beside_their_sidecars() -> None:
    spec = {
        "containers": [_container("a", "100m"), _container("b", "200m")],
        "initContainers": [
            _container("first", "500m"),
            _container("side", "300m", restartPolicy="Always"),
            _container("last", "400m"),
        ],
    }
    # max(300m + 300m beside the main ones, 500m, 300m + 400m)
    assert str(of_pod(spec, "requests")["cpu"]) == "700m"


def test_a_finished_pod_uses_nothing_but_its_place_in_the_store() -> None:
    pod = {"spec": {"containers": [_container("a", "1")]}, "status": {"phase": "Succeeded"}}
    assert list(usage("pods", pod)) == ["count/pods"]


@pytest.mark.parametrize(
    ("scope", "spec", "counted"),
    [
        ("BestEffort", {}, True),
        ("NotBestEffort", {}, False),
        ("Terminating", {"activeDeadlineSeconds": 5}, True),
        ("NotTerminating", {"activeDeadlineSeconds": 5}, False),
    ],
)
def test_scopes(scope: str, spec: Json, counted: bool) -> None:
    pod = {"spec": {"containers": [_container("a")], **spec}}
    assert in_scope({"scopes": [scope]}, "pods", pod) is counted
    assert not in_scope({"scopes": [scope]}, "secrets", {})


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["pods", "secrets", "resourcequotas"]),
        st.sampled_from(["a", "b"]),
        st.sampled_from(["", "100m", "2"]),
        st.sampled_from(["Running", "Succeeded"]),
        st.booleans(),
    ),
    max_size=25,
)
HARD = {"pods": "1", "requests.cpu": "1", "count/secrets": "1", "resourcequotas": "5"}


@settings(deadline=None)
@given(CHANGES)
def test_the_count_is_always_what_a_recount_finds(changes: list[Any]) -> None:
    store = Store()
    api = Api(store, Registry(), Steps())
    quotas = Quotas(api)
    store.observers.append(quotas.observe)
    for resource, name, cpu, phase, gone in changes:
        key = Key("n", name)
        if gone:
            if key in store.collection(resource).objects:
                store.remove(resource, key)
            continue
        spec: Json = {"containers": [_container("c", cpu)]}
        if resource == "resourcequotas":
            spec = {"hard": HARD} if cpu else {"hard": HARD, "scopes": ["NotBestEffort"]}
        item = {"metadata": {"name": name, "uid": name}, "spec": spec, "status": {"phase": phase}}
        store.commit(resource, key, {"apiVersion": "v1", **item})
    recounted = Quotas(api)
    recounted.load()
    assert _counts(quotas) == _counts(recounted)


def _counts(quotas: Quotas) -> dict[str, dict[str, str]]:
    return {
        name: {what: str(ledger.used.get(what, Amount.of("0"))) for what in ledger.hard}
        for name, ledger in quotas._ledgers.get("n", {}).items()
    }


async def test_a_quota_still_counts_after_a_restart(tmp_path: Path) -> None:
    first = ApiServer(tmp_path)
    await first.start()
    body = {"metadata": {"name": "q"}, "spec": {"hard": {"count/secrets": "1"}}}
    await first.client.create(QUOTAS, body, "default")
    await first.client.create(SECRETS, {"metadata": {"name": "a"}}, "default")
    await first.stop()
    second = ApiServer(tmp_path)
    await second.start()
    try:
        with pytest.raises(ApiError, match="exceeded quota: q"):
            await second.client.create(SECRETS, {"metadata": {"name": "b"}}, "default")
    finally:
        await second.stop()
