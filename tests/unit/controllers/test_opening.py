"""What opens an origin beside a Secret: read at each look, and told plainly when it is missing."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.fakekube import FakeKube

from beamlit_operator.api import Reason
from beamlit_operator.api.model import Origin
from beamlit_operator.controllers.opening import (
    Identity,
    Opener,
    Opening,
    OpeningProblemError,
    opening_of,
    session_name,
)
from beamlit_operator.controllers.stores import integration_of
from beamlit_operator.kube import CONFIG_MAPS, SERVICE_ACCOUNTS, ApiError, Json, Resource
from beamlit_operator.origins import OriginError, OriginReason
from beamlit_operator.origins.stores.trust import AUTHORITIES

ROLE = "arn:aws:iam::111122223333:role/models"
STS = "https://minio.example.com"
CA = Opening(authorities=("our-ca", "ca.crt"))


def web(
    *, role: str | None = ROLE, sts: str | None = None, audience: str = "sts.amazonaws.com"
) -> Opening:
    return Opening(identity=Identity("reader", role, audience, sts, "team.iris"))


class Cluster(FakeKube):
    """One that gives tokens, if it may."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Json] = []
        self.forbidden: set[str] = set()

    async def get(self, resource: Resource, name: str, *args: Any, **more: Any) -> Json:
        if resource.plural in self.forbidden:
            raise ApiError(403, "Forbidden", "no")
        return await super().get(resource, name, *args, **more)

    async def create(
        self,
        resource: Resource,
        body: Json,
        namespace: str | None = None,
        *,
        name: str | None = None,
        subresource: str | None = None,
    ) -> Json:
        assert (resource, namespace, name, subresource) == (
            *(SERVICE_ACCOUNTS, "team", "reader", "token"),
        )
        if "token" in self.forbidden:
            raise ApiError(403, "Forbidden", "no")
        self.asked.append(body["spec"])
        return {
            "spec": {"expirationSeconds": 1000},
            "status": {"token": f"token-{len(self.asked)}"},
        }

    async def account(self, **annotations: str) -> None:
        metadata = {"name": "reader", "namespace": "team", "uid": "u", "annotations": annotations}
        body = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}
        await self.put(SERVICE_ACCOUNTS, body)

    async def authorities(self, data: dict[str, str]) -> None:
        metadata = {"name": "our-ca", "namespace": "team"}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
        await self.put(CONFIG_MAPS, body)


async def problem(cluster: Cluster, opening: Opening) -> tuple[Reason, str]:
    with pytest.raises(OpeningProblemError) as caught:
        await Opener(cluster).open("team", opening)
    return caught.value.reason, str(caught.value)


async def test_authorities_are_read_and_their_change_is_another_version() -> None:
    cluster = Cluster()
    opener = Opener(cluster)
    await cluster.authorities({"ca.crt": "one"})
    first = await opener.open("team", CA)
    again = await opener.open("team", CA)
    await cluster.authorities({"ca.crt": "two"})
    changed = await opener.open("team", CA)
    assert first.values == again.values == {AUTHORITIES: "one"}
    assert changed.values == {AUTHORITIES: "two"}
    assert first.version == again.version != changed.version


@pytest.mark.parametrize(
    ("data", "forbidden", "words"),
    [
        (None, "", ("ConfigMap our-ca", "team", "create it")),
        ({"other": "x"}, "", ("ConfigMap our-ca", "no key ca.crt")),
        ({"ca.crt": "x"}, "configmaps", ("may not read ConfigMap our-ca", "upgrade the chart")),
    ],
)
async def test_missing_authorities_are_named(
    data: dict[str, str] | None, forbidden: str, words: tuple[str, ...]
) -> None:
    cluster = Cluster()
    cluster.forbidden = {forbidden}
    if data is not None:
        await cluster.authorities(data)
    reason, message = await problem(cluster, CA)
    assert reason is Reason.CONFIG_MAP_NOT_FOUND
    for word in words:
        assert word in message


async def test_a_token_is_for_the_audience_and_serves_until_shortly_before_it_ends() -> None:
    cluster, now = Cluster(), [0.0]
    opener = Opener(cluster, clock=lambda: now[0])
    await cluster.account()
    tokens = []
    for now[0] in (0.0, 799.0, 801.0):
        opened = await opener.open("team", web())
        tokens.append(opened.values["AWS_WEB_IDENTITY_TOKEN"])
    assert tokens == ["token-1", "token-1", "token-2"]
    assert cluster.asked[0]["audiences"] == ["sts.amazonaws.com"]
    opener.distrust("team", web())
    assert (await opener.open("team", web())).values["AWS_WEB_IDENTITY_TOKEN"] == "token-3"


async def test_the_role_is_the_models_or_else_the_accounts() -> None:
    cluster = Cluster()
    await cluster.account(**{"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/account"})
    own = await Opener(cluster).open("team", web())
    account = await Opener(cluster).open("team", web(role=None))
    assert (own.role, account.role) == (ROLE, "arn:aws:iam::1:role/account")
    assert own.values["AWS_ROLE_SESSION_NAME"] == "team.iris"


async def test_a_token_goes_elsewhere_than_to_aws_only_where_its_account_agrees() -> None:
    cluster = Cluster()
    await cluster.account()
    reason, message = await problem(cluster, web(sts=STS))
    assert reason is Reason.SERVICE_ACCOUNT_NOT_USABLE
    assert f"beamlit.com/sts-endpoint={STS}" in message
    await cluster.account(**{"beamlit.com/sts-endpoint": "https://evil.example.com"})
    await problem(cluster, web(sts=STS))
    assert cluster.asked == []
    await cluster.account(**{"beamlit.com/sts-endpoint": f"{STS}/"})
    opened = await Opener(cluster).open("team", web(sts=STS))
    assert opened.values["AWS_ENDPOINT_URL_STS"] == STS


async def test_a_token_is_for_others_than_aws_only_where_its_account_agrees() -> None:
    cluster = Cluster()
    agreed = {"beamlit.com/sts-endpoint": STS}
    for another in ({}, {"beamlit.com/sts-audience": "beamlit"}):
        await cluster.account(**agreed, **another)
        reason, message = await problem(cluster, web(sts=STS, audience="minio"))
        assert reason is Reason.SERVICE_ACCOUNT_NOT_USABLE
        assert "beamlit.com/sts-audience=minio" in message
    assert cluster.asked == []
    await cluster.account(**agreed, **{"beamlit.com/sts-audience": "minio"})
    await Opener(cluster).open("team", web(sts=STS, audience="minio"))
    assert cluster.asked[0]["audiences"] == ["minio"]


@pytest.mark.parametrize(
    "audience",
    [
        "https://kubernetes.default.svc",
        "https://kubernetes.default.svc.cluster.local",
        "kubernetes.default",
    ],
)
async def test_no_token_for_the_clusters_own_api_is_asked_for(audience: str) -> None:
    cluster = Cluster()
    await cluster.account(**{"beamlit.com/sts-audience": audience})
    reason, message = await problem(cluster, web(audience=audience))
    assert reason is Reason.SERVICE_ACCOUNT_NOT_USABLE
    assert "the cluster's own API" in message
    assert cluster.asked == []


@pytest.mark.parametrize(
    ("account", "forbidden", "opening", "words"),
    [
        (False, "", web(), ("ServiceAccount reader", "does not exist", "create it")),
        (True, "", web(role=None), ("eks.amazonaws.com/role-arn", "webIdentity.roleArn")),
        (True, "token", web(), ("serviceaccounts/token", "origins.webIdentity.enabled")),
        (True, "serviceaccounts", web(), ("get on serviceaccounts", "resourceNames [reader]")),
    ],
)
async def test_what_keeps_a_service_account_from_being_used_is_named(
    account: bool, forbidden: str, opening: Opening, words: tuple[str, ...]
) -> None:
    cluster = Cluster()
    cluster.forbidden = {forbidden}
    if account:
        await cluster.account()
    reason, message = await problem(cluster, opening)
    assert reason is Reason.SERVICE_ACCOUNT_NOT_USABLE
    for word in words:
        assert word in message


async def test_a_token_is_not_shown_by_what_holds_it() -> None:
    cluster = Cluster()
    await cluster.account()
    assert "token-1" not in repr(await Opener(cluster).open("team", web()))


def test_nodes_lend_their_identity_only_where_the_operator_allows_it() -> None:
    origin = Origin.model_validate({"s3": {"uri": "s3://models/iris", "nodeCredentials": True}})
    with pytest.raises(OriginError) as refused:
        opening_of(origin, workspace="team", model="iris", allow_node=False)
    assert refused.value.reason is OriginReason.NODE_CREDENTIALS_NOT_ALLOWED
    assert refused.value.stalled
    assert "origins.allowNodeCredentials" in refused.value.message
    assert opening_of(origin, workspace="team", model="iris", allow_node=True).node


def test_the_cache_of_a_workspace_is_no_origin() -> None:
    origin = Origin.model_validate({"pvc": {"claimName": "beamlit-cache", "path": "0" * 32}})

    def opened(cache: str) -> Opening:
        return opening_of(
            origin, workspace="team", model="iris", allow_node=False, cache_claim=cache
        )

    with pytest.raises(OriginError, match="is the cache of team") as refused:
        opened("beamlit-cache")
    assert refused.value.stalled
    assert "a claim of their own" in refused.value.message
    assert opened("").claim == opened("another").claim == "beamlit-cache"


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, "s3"),
        ({"nodeCredentials": True}, None),
        ({"webIdentity": {"serviceAccountName": "reader"}}, None),
        ({"credentialsSecretRef": {"name": "s3"}}, None),
    ],
)
def test_an_origin_with_an_identity_relies_on_no_integration(
    more: dict[str, Any], expected: str | None
) -> None:
    origin = Origin.model_validate({"s3": {"uri": "s3://models/iris", **more}})
    assert integration_of(origin) == expected


def test_the_name_in_the_stores_log_is_readable_short_and_ones_own() -> None:
    assert session_name("team", "iris") == "team.iris"
    long = [session_name("w" * 63, "m" * 62 + end) for end in "ab"]
    assert all(len(each) == 64 for each in long)
    assert long[0] != long[1]
