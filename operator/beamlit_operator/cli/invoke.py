"""``beamlit invoke MODEL``: one inference request through the gateway."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import aiohttp
from rich.console import Console

from beamlit_operator.api import ModelDeployment
from beamlit_operator.cli.cluster import Target, connection
from beamlit_operator.cli.credentials import advice, headers_for
from beamlit_operator.cli.errors import BAD_INPUT, FAILED, CommandError
from beamlit_operator.kube import MODEL_DEPLOYMENTS

ANSWER_TIMEOUT = 600.0
"""Seconds to wait for the answer: the gateway's start deadline and then some."""


async def invoke_command(
    model: str,
    target: Target,
    *,
    environment: str,
    data: str,
    path: str | None,
    token: str | None = None,
    account: str | None = None,
) -> int:
    """Sends the request and prints the body of the answer; fails when it is not a success."""
    body = _body(data)
    async with connection(target) as client:
        found = (await client.list(MODEL_DEPLOYMENTS, target.workspace)).items
        credentials = await headers_for(client, target.workspace, token=token, account=account)
    url = _endpoint(
        [ModelDeployment.model_validate(d) for d in found],
        model,
        environment=environment,
        workspace=target.workspace,
    )
    url = with_path(url, path or f"/v2/models/{model}/infer")
    errors = Console(stderr=True)
    started = time.monotonic()
    with errors.status("waiting for the answer; a model that sleeps starts first"):
        try:
            async with (
                aiohttp.ClientSession(
                    timeout=aiohttp.ClientTimeout(total=ANSWER_TIMEOUT)
                ) as session,
                session.post(
                    url, data=body, headers={"Content-Type": "application/json", **credentials}
                ) as answer,
            ):
                status, reply = answer.status, await answer.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise CommandError(
                f"no answer from {url}: {error or type(error).__name__}\nDoes the gateway run?"
            ) from error
    reason = _reason(reply) if status >= 400 else None
    if reason is None:
        _print_body(reply)
    if errors.is_terminal:
        errors.print(f"{status} in {time.monotonic() - started:.3f} s", style="dim")
    if status >= 400:
        hint = advice(status, workspace=target.workspace, sent=bool(credentials))
        raise CommandError(f"{url} answered {status}: {reason or 'see above'}{hint}", status=FAILED)
    return 0


def with_path(url: str, path: str) -> str:
    """An endpoint's URL with the model server's own path put before the query."""
    base, question, query = url.partition("?")
    return f"{base.rstrip('/')}/{path.lstrip('/')}{question}{query}"


def _body(data: str) -> bytes:
    if data == "@-":
        return sys.stdin.buffer.read()
    if data.startswith("@"):
        try:
            return Path(data[1:]).read_bytes()
        except OSError as error:
            raise CommandError(
                f"--data: {data[1:]} cannot be read: {error.strerror}", status=BAD_INPUT
            ) from error
    return data.encode()


def _endpoint(
    deployments: list[ModelDeployment], model: str, *, environment: str, workspace: str
) -> str:
    """The URL of the deployment of that model in that environment."""
    of_model = [d for d in deployments if d.spec.model == model]
    found = next((d for d in of_model if d.spec.environment == environment), None)
    if found is None:
        elsewhere = ", ".join(sorted(d.spec.environment for d in of_model))
        hint = f"it is deployed in: {elsewhere}" if elsewhere else "it is deployed nowhere"
        raise CommandError(
            f"model {model} has no deployment in environment {environment} of workspace"
            f" {workspace}; {hint}"
        )
    if not found.status.url:
        raise CommandError(
            f"ModelDeployment {found.metadata.name} has no endpoint yet:"
            f" `beamlit status {found.metadata.name}` says why"
        )
    return found.status.url


def _print_body(reply: bytes) -> None:
    try:
        print(json.dumps(json.loads(reply), indent=2, ensure_ascii=False))
    except ValueError:
        sys.stdout.buffer.write(reply + b"\n")
        sys.stdout.flush()


def _reason(reply: bytes) -> str | None:
    """What the gateway or the model server says is wrong, if it says so as ours or MLServer do."""
    try:
        error = json.loads(reply)["error"]
    except (ValueError, KeyError, TypeError):
        return None
    if isinstance(error, dict):
        return f"{error.get('reason', '')}: {error.get('message', '')}"
    return str(error)
