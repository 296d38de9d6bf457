"""What opens an origin beside a Secret: authorities that a workspace names, and identities.

Read from the workspace at each look, and again every few seconds while something is missing:

| what is wrong                                    | reason                    |
|--------------------------------------------------|---------------------------|
| the ConfigMap or its key is not there            | ConfigMapNotFound         |
| the operator may not read it                     | ConfigMapNotFound         |
| the ServiceAccount is not there                  | ServiceAccountNotUsable   |
| neither it nor the Model names a role            | ServiceAccountNotUsable   |
| it does not agree to the Model's `stsEndpoint`   | ServiceAccountNotUsable   |
| it does not agree to the Model's `audience`      | ServiceAccountNotUsable   |
| the `audience` is the cluster's own API          | ServiceAccountNotUsable   |
| the operator may not read it or ask for a token  | ServiceAccountNotUsable   |
| the claim with the files is not there            | ClaimNotFound             |
| it is there, and pods could not mount it         | ClaimNotUsable            |

A Model's author chooses where the token goes and what it is good for; so a place other than AWS,
and an audience other than AWS', must be one that the ServiceAccount names too, which its owner
wrote. Else an author could have the operator hand over a token that gateways, another service or
the API server itself take for the ServiceAccount. What the certificates are worth, and whether the
token is accepted, the store's module finds (`trust`, `identity` of `origins.stores`).
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from beamlit_operator.api import Reason, labels
from beamlit_operator.api.model import (
    STS_AUDIENCE,
    CaConfigMapRef,
    ClaimOrigin,
    Origin,
    WebIdentity,
)
from beamlit_operator.controllers.claims import usable_claim
from beamlit_operator.controllers.credentials import OpeningProblemError
from beamlit_operator.controllers.stores import store_kind
from beamlit_operator.kube import (
    CONFIG_MAPS,
    SERVICE_ACCOUNTS,
    ApiError,
    Json,
    KubeClient,
)
from beamlit_operator.origins import OriginError, OriginReason, OriginRef, S3Ref
from beamlit_operator.origins.errors import invalid
from beamlit_operator.origins.stores.claim import UID
from beamlit_operator.origins.stores.trust import AUTHORITIES
from beamlit_operator.workloads.access import Access

TOKEN_SECONDS = 3600
"""How long a token is asked for."""

_TOKENS_KEPT = 1024
_OWN_API = "kubernetes.default"
"""In every audience that API servers have by default."""
_LONGEST_SESSION_NAME = 64
"""Of AssumeRoleWithWebIdentity (AWS STS API reference, RoleSessionName)."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A ServiceAccount whose token is exchanged for credentials. Names only, no secrets."""

    service_account: str
    role: str | None
    audience: str
    sts_endpoint: str | None
    session: str
    """What the store's log calls it: workspace and Model."""


@dataclass(frozen=True, slots=True)
class Opening:
    """What opens an origin beside a Secret."""

    authorities: tuple[str, str] | None = None
    """A ConfigMap of the workspace, and its key."""
    identity: Identity | None = None
    node: bool = False
    """Whether the identity of the node or the pod counts."""
    claim: str = ""
    """A PersistentVolumeClaim of the workspace that holds the files."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What was read; never logged, shown or stored."""

    values: Mapping[str, str]
    version: str = ""
    role: str | None = None

    def __repr__(self) -> str:
        return f"Opened(version={self.version!r})"


def opening_of(
    origin: Origin, *, workspace: str, model: str, allow_node: bool, cache_claim: str = ""
) -> Opening:
    """What an origin's spec names.

    Args:
        origin: the spec.
        workspace: whose Model it is.
        model: its name.
        allow_node: whether `nodeCredentials` is allowed.
        cache_claim: the claims of this name are the operator's own; empty: none are.

    Raises:
        OriginError: ``NodeCredentialsNotAllowed``, or the claim is the workspace's cache.
    """
    found = store_kind(origin)
    part = found[1] if found is not None else None
    authorities: CaConfigMapRef | None = getattr(part, "ca_config_map_ref", None)
    web: WebIdentity | None = getattr(part, "web_identity", None)
    node = bool(getattr(part, "node_credentials", False))
    if node and not allow_node:
        raise OriginError(
            OriginReason.NODE_CREDENTIALS_NOT_ALLOWED,
            "nodeCredentials is not allowed here: use webIdentity or credentialsSecretRef, or let "
            "the operator allow it for everybody (the chart's value origins.allowNodeCredentials)",
        )
    claim = part.claim_name if isinstance(part, ClaimOrigin) else ""
    if claim and claim == cache_claim:
        # What is in it may be removed at any time, and holds files of Models with other rights.
        raise invalid(
            f"PersistentVolumeClaim {claim} is the cache of {workspace}, which the operator fills "
            "and tidies: put the files into a claim of their own"
        )
    return Opening(
        authorities=(authorities.name, authorities.key) if authorities is not None else None,
        identity=Identity(
            service_account=web.service_account_name,
            role=web.role_arn,
            audience=web.audience,
            sts_endpoint=web.sts_endpoint,
            session=session_name(workspace, model),
        )
        if web is not None
        else None,
        node=node,
        claim=claim,
    )


def session_name(workspace: str, model: str) -> str:
    """The name under which a Model's requests stand in the store's log: 2 to 64 characters."""
    whole = f"{workspace}.{model}"
    if len(whole) <= _LONGEST_SESSION_NAME:
        return whole
    digest = hashlib.sha256(whole.encode()).hexdigest()[:8]
    return f"{whole[: _LONGEST_SESSION_NAME - 9]}-{digest}"


def access_of_pods(
    opening: Opening, *, ref: OriginRef, role: str | None = None, as_of: str | None = None
) -> Access:
    """What the pods that fetch get of it: with the role of the ServiceAccount, and the time as of
    which a bucket with versions is read."""
    variables: dict[str, str] = {}
    identity = opening.identity
    if identity is not None:
        variables["AWS_ROLE_ARN"] = identity.role or role or ""
        variables["AWS_ROLE_SESSION_NAME"] = identity.session
        if identity.sts_endpoint:
            variables["AWS_ENDPOINT_URL_STS"] = identity.sts_endpoint
    if opening.node:
        variables["BEAMLIT_NODE_CREDENTIALS"] = "true"
    arguments: dict[str, str] = {}
    if isinstance(ref, S3Ref) and ref.addressing_style != "auto":
        arguments["--addressing-style"] = ref.addressing_style
    if isinstance(ref, S3Ref) and ref.version_id is not None:
        arguments["--version-id"] = ref.version_id
    if as_of is not None:
        arguments["--as-of"] = as_of
    return Access(
        authorities=opening.authorities,
        service_account=identity.service_account if identity is not None else "",
        audience=identity.audience if identity is not None else "",
        variables=tuple(variables.items()),
        arguments=tuple(arguments.items()),
    )


class Opener:
    """Reads what opens origins; keeps tokens until shortly before they end."""

    def __init__(self, client: KubeClient, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        # Token, and until when it is used.
        self._tokens: OrderedDict[tuple[str, str, str, str], tuple[str, float]] = OrderedDict()

    async def open(self, workspace: str, opening: Opening) -> Opened:
        """What the origin's module wants to know.

        Raises:
            OpeningProblemError: something is missing.
            ApiError: the API server did not answer.
        """
        values: dict[str, str] = {}
        versions: list[str] = []
        role: str | None = None
        if opening.authorities is not None:
            values[AUTHORITIES], version = await self._authorities(workspace, opening.authorities)
            versions.append(version)
        if opening.node:
            values["BEAMLIT_NODE_CREDENTIALS"] = "true"
        if opening.identity is not None:
            account = await self._account(workspace, opening.identity)
            versions.append(str(account["metadata"].get("resourceVersion", "")))
            role = _role(account, opening.identity, workspace)
            _check_endpoint(account, opening.identity, workspace)
            _check_audience(account, opening.identity, workspace)
            values["AWS_ROLE_ARN"] = role
            values["AWS_ROLE_SESSION_NAME"] = opening.identity.session
            values["AWS_WEB_IDENTITY_TOKEN"] = await self._token(
                workspace, opening.identity, str(account["metadata"].get("uid", ""))
            )
            if opening.identity.sts_endpoint:
                values["AWS_ENDPOINT_URL_STS"] = opening.identity.sts_endpoint
        if opening.claim:
            values[UID], version = await usable_claim(self._client, workspace, opening.claim)
            versions.append(version)
        return Opened(values, ",".join(versions), role)

    def distrust(self, workspace: str, opening: Opening) -> None:
        """The token was of no use: the next look asks for another."""
        if opening.identity is None:
            return
        wanted = (workspace, opening.identity.service_account)
        for key in [key for key in self._tokens if key[:2] == wanted]:
            del self._tokens[key]

    async def _authorities(self, workspace: str, named: tuple[str, str]) -> tuple[str, str]:
        name, key = named
        try:
            found = await self._client.get(CONFIG_MAPS, name, workspace)
        except ApiError as error:
            if error.not_found:
                problem = f"ConfigMap {name} does not exist in {workspace}: create it"
            elif error.status == 403:
                problem = (
                    f"the operator may not read ConfigMap {name} in {workspace}: its ClusterRole "
                    "is older than this version, so upgrade the chart"
                )
            else:
                raise
            raise OpeningProblemError(Reason.CONFIG_MAP_NOT_FOUND, problem) from None
        text = (found.get("data") or {}).get(key)
        if text is None:
            raise OpeningProblemError(
                Reason.CONFIG_MAP_NOT_FOUND,
                f"ConfigMap {name} in {workspace} has no key {key}: add it, with the certificates "
                "of your authorities as PEM",
            )
        return str(text), str(found["metadata"].get("resourceVersion", ""))

    async def _account(self, workspace: str, identity: Identity) -> Json:
        name = identity.service_account
        try:
            return await self._client.get(SERVICE_ACCOUNTS, name, workspace)
        except ApiError as error:
            if error.not_found:
                problem = f"ServiceAccount {name} does not exist in {workspace}: create it"
            elif error.status == 403:
                problem = _not_granted(name, workspace)
            else:
                raise
            raise OpeningProblemError(Reason.SERVICE_ACCOUNT_NOT_USABLE, problem) from None

    async def _token(self, workspace: str, identity: Identity, uid: str) -> str:
        key = (workspace, identity.service_account, uid, identity.audience)
        now = self._clock()
        held = self._tokens.get(key)
        if held is not None and now < held[1]:
            self._tokens.move_to_end(key)
            return held[0]
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": [identity.audience], "expirationSeconds": TOKEN_SECONDS},
        }
        try:
            answer = await self._client.create(
                SERVICE_ACCOUNTS,
                body,
                workspace,
                name=identity.service_account,
                subresource="token",
            )
        except ApiError as error:
            if error.status != 403:
                raise
            raise OpeningProblemError(
                Reason.SERVICE_ACCOUNT_NOT_USABLE,
                _not_granted(identity.service_account, workspace),
            ) from None
        token = str(answer["status"]["token"])
        lives = float((answer.get("spec") or {}).get("expirationSeconds") or TOKEN_SECONDS)
        self._tokens[key] = (token, now + 0.8 * lives)
        self._tokens.move_to_end(key)
        while len(self._tokens) > _TOKENS_KEPT:
            self._tokens.popitem(last=False)
        return token


def _not_granted(name: str, workspace: str) -> str:
    return (
        f"the operator may not ask for a token of ServiceAccount {name} in {workspace}: give it a "
        "Role there with the verb get on serviceaccounts and create on serviceaccounts/token, "
        f"resourceNames [{name}], or set the chart's value origins.webIdentity.enabled for all "
        "workspaces"
    )


def _role(account: Json, identity: Identity, workspace: str) -> str:
    annotations = account["metadata"].get("annotations") or {}
    role = identity.role or annotations.get(labels.ROLE_ARN)
    if role:
        return str(role)
    raise OpeningProblemError(
        Reason.SERVICE_ACCOUNT_NOT_USABLE,
        f"ServiceAccount {identity.service_account} in {workspace} has no annotation "
        f"{labels.ROLE_ARN}: add it, or set webIdentity.roleArn",
    )


def _check_endpoint(account: Json, identity: Identity, workspace: str) -> None:
    if identity.sts_endpoint is None:
        return
    annotations = account["metadata"].get("annotations") or {}
    agreed = str(annotations.get(labels.STS_ENDPOINT) or "")
    if agreed.rstrip("/") == identity.sts_endpoint.rstrip("/"):
        return
    raise OpeningProblemError(
        Reason.SERVICE_ACCOUNT_NOT_USABLE,
        f"webIdentity.stsEndpoint is {identity.sts_endpoint}, where ServiceAccount "
        f"{identity.service_account} in {workspace} does not send its token: annotate it with "
        f"{labels.STS_ENDPOINT}={identity.sts_endpoint}",
    )


def _check_audience(account: Json, identity: Identity, workspace: str) -> None:
    wanted = identity.audience
    if wanted == STS_AUDIENCE:
        return
    if _OWN_API in wanted:
        raise OpeningProblemError(
            Reason.SERVICE_ACCOUNT_NOT_USABLE,
            f"webIdentity.audience is {wanted}, the cluster's own API, for which a token is sent "
            "to no store: name the audience that the store knows",
        )
    annotations = account["metadata"].get("annotations") or {}
    if annotations.get(labels.STS_AUDIENCE) == wanted:
        return
    raise OpeningProblemError(
        Reason.SERVICE_ACCOUNT_NOT_USABLE,
        f"webIdentity.audience is {wanted}, for which ServiceAccount {identity.service_account} in "
        f"{workspace} gives no token: annotate it with {labels.STS_AUDIENCE}={wanted}",
    )
