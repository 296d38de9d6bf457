"""Tokens for calling endpoints: ``beamlit token``, and what ``beamlit invoke`` sends.

A token is for the gateway alone (its audience), never one's own for the API server: what a person
may do in the cluster is nothing to hand to a gateway. So somebody is named: a ServiceAccount, or
whoever the given token is.

=============================  ============  ==============  ==================================
``--token``                    the variable  ``--service-    is sent
                                             account``
=============================  ============  ==============  ==================================
given                          any           any             that token
not given                      any           given           a new token of that account
not given                      set           not given       the variable's
not given                      not set       not given       nothing; a 401 says what to do
=============================  ============  ==============  ==================================
"""

from __future__ import annotations

import os

from beamlit_operator.cli.cluster import Target, connection
from beamlit_operator.cli.errors import BAD_INPUT, CommandError
from beamlit_operator.kube import SERVICE_ACCOUNTS, ApiError, KubeClient

VARIABLE = "BEAMLIT_TOKEN"
AUDIENCE = "beamlit"
HEADER = "X-Beamlit-Authorization"
"""Not ``Authorization``, which a model server may want for itself."""

SHORT = 600
"""Seconds that a token for one call is good: the least that an API server issues."""


async def token_command(account: str, target: Target, *, audience: str, seconds: int) -> int:
    """Prints a token of a ServiceAccount."""
    async with connection(target) as client:
        print(
            await account_token(
                client, account, target.workspace, audience=audience, seconds=seconds
            )
        )
    return 0


async def account_token(
    client: KubeClient, account: str, workspace: str, *, audience: str, seconds: int
) -> str:
    """A new token.

    Raises:
        CommandError: there is no such account.
    """
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"audiences": [audience], "expirationSeconds": seconds},
    }
    try:
        answer = await client.create(
            SERVICE_ACCOUNTS, body, workspace, name=account, subresource="token"
        )
    except ApiError as error:
        if not error.not_found:
            raise
        raise CommandError(
            f"workspace {workspace} has no ServiceAccount {account}:"
            f" `kubectl -n {workspace} create serviceaccount {account}` makes one",
            status=BAD_INPUT,
        ) from error
    return str(answer["status"]["token"])


async def headers_for(
    client: KubeClient, workspace: str, *, token: str | None, account: str | None
) -> dict[str, str]:
    """What a call sends, by the table above."""
    if token is None and account is not None:
        token = await account_token(client, account, workspace, audience=AUDIENCE, seconds=SHORT)
    token = token or os.environ.get(VARIABLE)
    return {HEADER: f"Bearer {token}"} if token else {}


def advice(status: int, *, workspace: str, sent: bool) -> str:
    """What to do about a refusal of the gateway, on a line of its own; empty for other answers."""
    if status == 401 and not sent:
        return (
            f"\nGive --token, set {VARIABLE}, or let a ServiceAccount call: --service-account NAME"
        )
    if status == 403:
        return (
            f"\nA workspace's admin gives that right: `kubectl -n {workspace} create rolebinding"
            f" NAME-calls --clusterrole=beamlit-consumer --serviceaccount={workspace}:NAME`"
        )
    return ""
