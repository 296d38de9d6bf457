"""Who asks an S3-compatible store, and how that is proven.

| the credentials hold                              | who asks                                     |
|---------------------------------------------------|----------------------------------------------|
| ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``  | that key                                     |
| ``AWS_ROLE_ARN``, and a token or a file with one  | the role, by AssumeRoleWithWebIdentity       |
| ``BEAMLIT_NODE_CREDENTIALS``                      | the pod (EKS Pod Identity, ECS), or the node |
|                                                   | (instance profile, by IMDSv2)                |
| none of them                                      | nobody: requests are not signed              |

The first row that fits counts. Credentials of the second and the third row end after an hour or so;
botocore asks for new ones before they do, also in the middle of a long fetch. Those of a role are
kept until then, so that thousands of looks are few exchanges.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from botocore.config import Config
from botocore.credentials import (
    AssumeRoleWithWebIdentityCredentialFetcher,
    ContainerProvider,
    DeferredRefreshableCredentials,
    InstanceMetadataProvider,
)
from botocore.exceptions import BotoCoreError, ClientError
from botocore.utils import InstanceMetadataFetcher

from beamlit_operator.origins.errors import OriginError, OriginReason, one_line
from beamlit_operator.origins.stores.reach import why
from beamlit_operator.origins.stores.trust import AUTHORITIES

ACCESS_KEY = "AWS_ACCESS_KEY_ID"
SECRET_KEY = "AWS_SECRET_ACCESS_KEY"  # noqa: S105 - the name of a field
SESSION_TOKEN = "AWS_SESSION_TOKEN"  # noqa: S105 - the name of a field
ROLE = "AWS_ROLE_ARN"
SESSION_NAME = "AWS_ROLE_SESSION_NAME"
TOKEN = "AWS_WEB_IDENTITY_TOKEN"  # noqa: S105 - the name of a field
"""The token itself: the operator's way, which writes it nowhere."""
TOKEN_FILE = "AWS_WEB_IDENTITY_TOKEN_FILE"  # noqa: S105 - the name of a field
"""A file with the token, which somebody else renews: a pod's way."""
STS_ENDPOINT = "AWS_ENDPOINT_URL_STS"
NODE = "BEAMLIT_NODE_CREDENTIALS"

_METADATA_SECONDS = 2
_METADATA_ATTEMPTS = 3
_ROLES_KEPT = 256

MakeClient = Callable[[str, str | None, Config], Any]
"""Makes a client of a service, at an endpoint (None: AWS's), with a configuration."""

# It logs a traceback when an exchange fails; what failed is told by whoever asked.
logging.getLogger("botocore.credentials").setLevel(logging.CRITICAL)


class Who(Enum):
    """The rows of the table above."""

    KEY = "the key"
    ROLE = "the role"
    NODE = "the identity of the node or pod"
    NOBODY = "anonymous access"


def who_asks(credentials: Mapping[str, str]) -> Who:
    """Which row it is."""
    if credentials.get(ACCESS_KEY) or credentials.get(SECRET_KEY):
        return Who.KEY
    if credentials.get(ROLE) and (credentials.get(TOKEN) or credentials.get(TOKEN_FILE)):
        return Who.ROLE
    if credentials.get(NODE, "").lower() in ("1", "true", "yes"):
        return Who.NODE
    return Who.NOBODY


def role_credentials(
    credentials: Mapping[str, str], *, place: str, region: str, make_client: MakeClient
) -> Any:
    """Credentials of a role that renew themselves, for botocore. Nothing is asked yet.

    Args:
        credentials: those of the second row.
        place: the origin, for messages.
        region: where AWS's STS is asked, if no endpoint is given.
        make_client: makes the client of STS.
    """
    plain = (ROLE, SESSION_NAME, STS_ENDPOINT, TOKEN_FILE)
    digested = "\n".join(credentials.get(name, "") for name in (TOKEN, AUTHORITIES))
    key = (
        *(credentials.get(name, "") for name in plain),
        hashlib.sha256(digested.encode()).hexdigest(),
        place,
        region,
    )
    with _LOCK:
        found = _ROLES.get(key)
        if found is None:
            found = _ROLES[key] = _deferred(credentials, place=place, make_client=make_client)
        _ROLES.move_to_end(key)
        while len(_ROLES) > _ROLES_KEPT:
            _ROLES.popitem(last=False)
    return found


_LOCK = threading.Lock()
_ROLES: OrderedDict[tuple[str, ...], Any] = OrderedDict()


def _deferred(
    credentials: Mapping[str, str], *, place: str, make_client: MakeClient
) -> DeferredRefreshableCredentials:
    endpoint = credentials.get(STS_ENDPOINT) or None

    def token() -> str:
        held = credentials.get(TOKEN)
        if held:
            return held
        name = credentials[TOKEN_FILE]
        try:
            return Path(name).read_text().strip()
        except OSError as error:
            raise OriginError(
                OriginReason.CREDENTIALS_INVALID,
                f"the token for {place} cannot be read: {name}: {error.strerror}",
            ) from None

    fetcher = AssumeRoleWithWebIdentityCredentialFetcher(  # type: ignore[no-untyped-call]
        client_creator=lambda service, config: make_client(service, endpoint, config),
        web_identity_token_loader=token,
        role_arn=credentials[ROLE],
        extra_args={"RoleSessionName": credentials.get(SESSION_NAME) or "beamlit-fetch"},
    )

    def exchange() -> Any:
        try:
            return fetcher.fetch_credentials()  # type: ignore[no-untyped-call]
        except (ClientError, BotoCoreError) as error:
            raise _judge_exchange(error, credentials, place) from None

    return DeferredRefreshableCredentials(  # type: ignore[no-untyped-call]
        refresh_using=exchange, method="assume-role-with-web-identity"
    )


def node_credentials(session: Any, *, place: str) -> Any:
    """Credentials of the pod or node that this process is on, which renew themselves.

    Raises:
        OriginError: there are none.
    """
    global _of_node
    with _NODE_LOCK:
        if _of_node is None:
            _of_node = _ask_node(session, place)
        return _of_node


_NODE_LOCK = threading.Lock()
_of_node: Any = None


def _ask_node(session: Any, place: str) -> Any:
    fetcher = InstanceMetadataFetcher(  # type: ignore[no-untyped-call]
        timeout=_METADATA_SECONDS,
        num_attempts=_METADATA_ATTEMPTS,
        user_agent=session.user_agent(),
        config={
            name: session.get_config_variable(name)
            for name in (
                "ec2_metadata_service_endpoint",
                "ec2_metadata_service_endpoint_mode",
            )
        }
        # Version 1 answers whoever can make a container ask a URL.
        | {"ec2_metadata_v1_disabled": True},
    )
    providers = (
        ContainerProvider(),  # type: ignore[no-untyped-call]
        InstanceMetadataProvider(fetcher),  # type: ignore[no-untyped-call]
    )
    words = "nobody gives credentials here"
    try:
        for provider in providers:
            found = provider.load()  # type: ignore[no-untyped-call]
            if found is not None:
                return found
    except (ClientError, BotoCoreError, ValueError) as error:
        words = one_line(str(error))
    raise OriginError(
        OriginReason.CREDENTIALS_INVALID,
        f"{place} is to be read with the identity of the pod or node, and there is none: associate "
        "its ServiceAccount with a role (EKS Pod Identity), or give the node an instance profile "
        f"whose IMDSv2 pods can reach (a hop limit of 2); {words}",
    )


_TOKEN_CODES = {
    "InvalidIdentityToken",
    "InvalidIdentityTokenException",
    "ExpiredTokenException",
    "ExpiredToken",
    "IDPRejectedClaim",
    "InvalidParameterValue",
}


def _judge_exchange(
    error: ClientError | BotoCoreError, credentials: Mapping[str, str], place: str
) -> OriginError:
    """What it means that no credentials were given for a token."""
    role, where = credentials[ROLE], credentials.get(STS_ENDPOINT) or "AWS STS"
    start = f"the token of the ServiceAccount for {place} was not exchanged for role {role}"
    if not isinstance(error, ClientError):
        return OriginError(
            OriginReason.UNREACHABLE,
            f"{start}: {where} (webIdentity's stsEndpoint) cannot be reached: {why(error)}",
        )
    answer = error.response
    code = one_line(str(answer.get("Error", {}).get("Code", "")))[:100]
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in _TOKEN_CODES:
        return OriginError(
            OriginReason.CREDENTIALS_INVALID,
            f"{start}: {where} does not accept it ({code}): make the cluster's issuer known there "
            "as an identity provider, for the audience of webIdentity",
        )
    if status == 429 or "Thrott" in code:
        return OriginError(
            OriginReason.RATE_LIMITED, f"{start}: {where} asks to slow down; it is tried again"
        )
    if status in (401, 403):
        return OriginError(
            OriginReason.ACCESS_DENIED,
            f"{start}: {where} refuses it: the role's trust policy must name the ServiceAccount "
            "and the audience, or roleArn is wrong",
        )
    text = one_line(str(answer.get("Error", {}).get("Message", "")), [credentials.get(TOKEN, "")])
    reason = OriginReason.CREDENTIALS_INVALID if status == 400 else OriginReason.UNREACHABLE
    if code == "IDPCommunicationError":  # AWS could not read the issuer's keys
        reason = OriginReason.UNREACHABLE
    return OriginError(reason, f"{start}: {where} answered {status} {code}: {text}")
