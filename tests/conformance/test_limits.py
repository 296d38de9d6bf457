"""ResourceQuota and LimitRange: what is counted, what is filled in, and what is refused how."""

from __future__ import annotations

from typing import Any

import pytest

from beamlit_operator.kube import (
    CONFIG_MAPS,
    PODS,
    SECRETS,
    ApiError,
    HttpClient,
    Json,
    Resource,
)

from .conftest import Eventually
from .identities import ACCOUNTS
from .objects import config_map

QUOTAS = Resource("", "v1", "resourcequotas", "ResourceQuota")
LIMIT_RANGES = Resource("", "v1", "limitranges", "LimitRange")


@pytest.fixture
async def namespace(client: HttpClient, namespace: str, eventually: Eventually) -> str:
    """One in which pods can be created."""

    async def ready() -> bool:
        accounts = await client.list(ACCOUNTS, namespace)
        maps = await client.list(CONFIG_MAPS, namespace)
        return bool(accounts.items and maps.items)

    await eventually(ready)
    return namespace


def pod(name: str, /, *resources: Json, **spec: Any) -> Json:
    """A pod that no node runs, with one container (``c0``, ``c1``, ...) per ``resources``."""
    containers = [
        {"name": f"c{number}", "image": "example.com/none:1", "resources": wanted}
        for number, wanted in enumerate(resources or ({},))
    ]
    nowhere = {"conformance.beamlit.com/none": "x"}
    return {
        "metadata": {"name": name},
        "spec": {"nodeSelector": nowhere, "containers": containers, **spec},
    }


def requests(**values: str) -> Json:
    return {"requests": values}


async def refusal(client: HttpClient, resource: Resource, body: Json, namespace: str) -> str:
    """The message of the 403 without its head."""
    with pytest.raises(ApiError) as caught:
        await client.create(resource, body, namespace)
    name = body["metadata"]["name"]
    head = f'{resource.plural} "{name}" is forbidden: '
    assert (caught.value.status, caught.value.reason) == (403, "Forbidden"), caught.value
    assert caught.value.message.startswith(head)
    return caught.value.message.removeprefix(head)


@pytest.fixture
def quota(client: HttpClient, namespace: str, eventually: Eventually) -> Any:
    """Creates a quota and waits until it counts; ``used`` waits for figures."""

    class Quota:
        async def __call__(self, hard: Json, **spec: Any) -> None:
            body = {"metadata": {"name": "q"}, "spec": {"hard": hard, **spec}}
            await client.create(QUOTAS, body, namespace)
            await eventually(self._counted)

        async def _counted(self) -> Json:
            found = await client.get(QUOTAS, "q", namespace)
            return dict((found.get("status") or {}).get("used") or {})

        async def used(self, **wanted: str) -> None:
            names = {name.replace("_", "."): value for name, value in wanted.items()}

            async def so() -> bool:
                counted = await self._counted()
                return {name: counted.get(name) for name in names} == names

            await eventually(so)

    return Quota()


async def test_a_quota_counts_what_is_there(client: HttpClient, namespace: str, quota: Any) -> None:
    await client.create(PODS, pod("old", requests(cpu="250m")), namespace)
    await quota({"pods": "5", "requests.cpu": "2", "configmaps": "5", "count/secrets": "3"})
    await quota.used(pods="1", requests_cpu="250m", configmaps="1")
    await client.create(PODS, pod("new", requests(cpu="250m")), namespace)
    await client.create(CONFIG_MAPS, config_map("x"), namespace)
    await quota.used(pods="2", requests_cpu="500m", configmaps="2")
    await client.delete(PODS, "old", namespace, grace_period_seconds=0)
    await quota.used(pods="1", requests_cpu="250m")


async def test_a_count_is_not_exceeded(client: HttpClient, namespace: str, quota: Any) -> None:
    await quota({"count/secrets": "1"})
    await client.create(SECRETS, {"metadata": {"name": "a"}}, namespace)
    assert await refusal(client, SECRETS, {"metadata": {"name": "b"}}, namespace) == (
        "exceeded quota: q, requested: count/secrets=1, used: count/secrets=1, "
        "limited: count/secrets=1"
    )


async def test_a_refusal_names_all_that_is_exceeded(
    client: HttpClient, namespace: str, quota: Any
) -> None:
    await quota({"pods": "1", "requests.cpu": "1", "requests.memory": "1Gi"})
    await client.create(PODS, pod("a", requests(cpu="500m", memory="200Mi")), namespace)
    more = pod("b", requests(cpu="600m", memory="100Mi"))
    assert await refusal(client, PODS, more, namespace) == (
        "exceeded quota: q, requested: pods=1,requests.cpu=600m, used: pods=1,requests.cpu=500m, "
        "limited: pods=1,requests.cpu=1"
    )
    both = pod("c", requests(cpu="1m", memory="1Mi"), {"limits": {"cpu": "2", "memory": "2Gi"}})
    assert await refusal(client, PODS, both, namespace) == (
        "exceeded quota: q, requested: pods=1,requests.cpu=2001m,requests.memory=2049Mi, "
        "used: pods=1,requests.cpu=500m,requests.memory=200Mi, "
        "limited: pods=1,requests.cpu=1,requests.memory=1Gi"
    )


async def test_a_quota_of_processors_wants_every_container_to_say_how_much(
    client: HttpClient, namespace: str, quota: Any
) -> None:
    await quota({"requests.cpu": "1", "limits.memory": "1Gi"})
    assert await refusal(client, PODS, pod("a", {}, {}), namespace) == (
        "failed quota: q: must specify limits.memory for: c0,c1; requests.cpu for: c0,c1"
    )


async def test_an_init_container_counts_as_far_as_it_needs_more(
    client: HttpClient, namespace: str, quota: Any
) -> None:
    await quota({"requests.cpu": "2"})
    init = {"name": "init", "image": "example.com/none:1", "resources": requests(cpu="900m")}
    body = pod("a", requests(cpu="200m"), requests(cpu="300m"), initContainers=[init])
    await client.create(PODS, body, namespace)
    await quota.used(requests_cpu="900m")


async def test_a_dry_run_uses_nothing(client: HttpClient, namespace: str, quota: Any) -> None:
    await quota({"count/secrets": "1"})
    path = f"/api/v1/namespaces/{namespace}/secrets"
    for _ in range(2):
        body = {"metadata": {"name": "a"}}
        answer = await client.request("POST", path, query={"dryRun": "All"}, body=body)
        await answer.read()
    await client.create(SECRETS, {"metadata": {"name": "a"}}, namespace)


async def test_a_scope_counts_its_pods_only(client: HttpClient, namespace: str, quota: Any) -> None:
    await quota({"pods": "0"}, scopes=["BestEffort"])
    await client.create(PODS, pod("sure", requests(cpu="100m")), namespace)
    assert await refusal(client, PODS, pod("unsure"), namespace) == (
        "exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0"
    )


async def test_a_quota_that_makes_no_sense_is_refused(client: HttpClient, namespace: str) -> None:
    body = {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "1500m"}}}
    with pytest.raises(ApiError) as caught:
        await client.create(QUOTAS, body, namespace)
    assert (caught.value.status, caught.value.message) == (
        422,
        'ResourceQuota "q" is invalid: spec.hard[pods]: Invalid value: "1500m": must be an integer',
    )


async def _limit(client: HttpClient, namespace: str, *limits: Json) -> Json:
    body = {"metadata": {"name": "l"}, "spec": {"limits": list(limits)}}
    return await client.create(LIMIT_RANGES, body, namespace)


def _container(**limit: Json) -> Json:
    return {"type": "Container", **limit}


@pytest.fixture
def limits(client: HttpClient, namespace: str, eventually: Eventually) -> Any:
    """Creates a LimitRange and waits until ``probe`` is no longer as without it."""

    async def make(*limits: Json) -> Json:
        made = await _limit(client, namespace, *limits)
        path = f"/api/v1/namespaces/{namespace}/pods"

        async def felt() -> bool:
            try:
                answer = await client.request(
                    "POST", path, query={"dryRun": "All"}, body=pod("probe")
                )
            except ApiError as error:
                if error.status != 403:
                    raise
                return True
            return "limit-ranger" in str(await answer.text())

        await eventually(felt)
        return made

    return make


async def test_a_container_that_says_nothing_gets_the_defaults(
    client: HttpClient, namespace: str, limits: Any
) -> None:
    await limits(_container(default={"cpu": "500m"}, defaultRequest={"cpu": "200m"}))
    made = await client.create(PODS, pod("a"), namespace)
    resources = made["spec"]["containers"][0]["resources"]
    assert resources == {"limits": {"cpu": "500m"}, "requests": {"cpu": "200m"}}
    assert made["metadata"]["annotations"]["kubernetes.io/limit-ranger"] == (
        "LimitRanger plugin set: cpu request for container c0; cpu limit for container c0"
    )
    assert made["status"]["qosClass"] == "Burstable"


async def test_a_limit_range_completes_itself(client: HttpClient, namespace: str) -> None:
    made = await _limit(
        client,
        namespace,
        _container(max={"cpu": "1", "memory": "1Gi"}, default={"cpu": "500m"}, min={"cpu": "1m"}),
    )
    (limit,) = made["spec"]["limits"]
    assert limit["default"] == limit["defaultRequest"] == {"cpu": "500m", "memory": "1Gi"}


async def test_a_pod_outside_the_limits_is_told_everything_at_once(
    client: HttpClient, namespace: str, limits: Any
) -> None:
    container = _container(
        max={"cpu": "1", "memory": "1Gi"},
        min={"cpu": "100m"},
        defaultRequest={"cpu": "200m"},
        maxLimitRequestRatio={"cpu": "4"},
    )
    await limits(container, {"type": "Pod", "max": {"cpu": "1500m"}})
    wild = {"requests": {"cpu": "50m"}, "limits": {"cpu": "2", "memory": "2Gi"}}
    told = await refusal(client, PODS, pod("a", wild), namespace)
    # Kubernetes goes through each kind of limit in no order.
    assert sorted(told.strip("[]").replace(", but", " but").split(", ")) == sorted(
        [
            "minimum cpu usage per Container is 100m but request is 50m",
            "maximum cpu usage per Container is 1 but limit is 2",
            "maximum memory usage per Container is 1Gi but limit is 2Gi",
            "cpu max limit to request ratio per Container is 4 but provided ratio is 40.000000",
            "maximum cpu usage per Pod is 1500m but limit is 2",
        ]
    )
    steep = {"requests": {"cpu": "150m"}, "limits": {"cpu": "1"}}
    assert await refusal(client, PODS, pod("b", steep), namespace) == (
        "cpu max limit to request ratio per Container is 4, but provided ratio is 6.666667"
    )
    full = {"limits": {"cpu": "1"}}
    assert await refusal(client, PODS, pod("c", full, full), namespace) == (
        "maximum cpu usage per Pod is 1500m, but limit is 2"
    )


async def test_a_pod_that_says_nothing_cannot_be_within_limits(
    client: HttpClient, namespace: str, limits: Any
) -> None:
    await limits({"type": "Pod", "min": {"cpu": "100m"}, "max": {"memory": "1Gi"}})
    assert await refusal(client, PODS, pod("a"), namespace) == (
        "[minimum cpu usage per Pod is 100m.  No request is specified, maximum memory usage per "
        "Pod is 1Gi.  No limit is specified]"
    )


async def test_defaults_are_counted_by_quotas(
    client: HttpClient, namespace: str, limits: Any, quota: Any
) -> None:
    await limits(_container(defaultRequest={"cpu": "200m"}))
    await quota({"requests.cpu": "300m"})
    await client.create(PODS, pod("a"), namespace)
    await quota.used(requests_cpu="200m")
    assert await refusal(client, PODS, pod("b"), namespace) == (
        "exceeded quota: q, requested: requests.cpu=200m, used: requests.cpu=200m, "
        "limited: requests.cpu=300m"
    )


async def test_a_limit_range_that_contradicts_itself_is_refused(
    client: HttpClient, namespace: str
) -> None:
    with pytest.raises(ApiError) as caught:
        await _limit(
            client,
            namespace,
            _container(max={"cpu": "1"}, min={"cpu": "2"}, default={"cpu": "1"}),
            {"type": "Pod", "default": {"cpu": "1"}},
        )
    assert caught.value.status == 422
    causes = [(c["field"], c["message"]) for c in caught.value.details["causes"]]
    assert causes[0] == (
        "spec.limits[0].min[cpu]",
        'Invalid value: "2": min value 2 is greater than max value 1',
    )
    assert causes[-1] == (
        "spec.limits[1].default",
        "Forbidden: may not be specified when `type` is 'Pod'",
    )
