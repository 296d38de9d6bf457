"""``beamlit apikey``: keys for callers that have no identity of the cluster's.

All keys of a workspace are in its Secret ``beamlit-api-keys``, each under its id. Every change is
one patch of one entry, so people who change keys at the same time do not undo each other's.
"""

from __future__ import annotations

import base64
import re
import secrets
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from rich.table import Table
from rich.text import Text

from beamlit_operator.api import labels
from beamlit_operator.api.apikey import (
    MOST_KEYS,
    SECRET_NAME,
    ApiKey,
    digest,
    key_text,
    parse_keys,
)
from beamlit_operator.cli.cluster import Target, connection
from beamlit_operator.cli.errors import BAD_INPUT, CommandError
from beamlit_operator.cli.screen import table_console
from beamlit_operator.kube import SECRETS, ApiError, Json, KubeClient

FIELD_MANAGER = "beamlit-apikey"

_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9._]{0,61}[A-Za-z0-9])?")
_SPAN = re.compile(r"([1-9][0-9]{0,4})([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


async def create_command(
    name: str, target: Target, *, deployments: tuple[str, ...], expires: str | None
) -> int:
    """Makes a key and prints it, which happens once: the cluster keeps its hash only."""
    if not _NAME.fullmatch(name):
        raise CommandError(
            f"{name!r} is no name for a key: letters, digits, `-`, `_` and `.`, at most 63",
            status=BAD_INPUT,
        )
    now = datetime.now(UTC).replace(microsecond=0)
    id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    key = ApiKey(
        id=id,
        name=name,
        sha256=digest(secret),
        deployments=deployments or None,
        expires=None if expires is None else now + span(expires),
        created=now.isoformat().replace("+00:00", "Z"),
    )
    async with connection(target) as client:
        known = await _keys(client, target.workspace)
        if any(each.name == name for each in known.values()):
            raise CommandError(
                f"workspace {target.workspace} has a key {name!r} already: revoke that one first,"
                " or take another name",
                status=BAD_INPUT,
            )
        if len(known) >= MOST_KEYS:
            raise CommandError(
                f"workspace {target.workspace} has {len(known)} keys, and no more are looked at"
            )
        await _put(client, target.workspace, id, key.document())
    print(key_text(id, secret))
    what = ", ".join(deployments) or "every deployment"
    until = f" until {key.expires:%Y-%m-%d %H:%M} UTC" if key.expires else ""
    print(
        f"Key {name!r} ({id}) may call {what} of workspace {target.workspace}{until}."
        " It is shown this once.",
        file=sys.stderr,
    )
    return 0


async def list_command(target: Target) -> int:
    """Shows the keys of a workspace, none of which can be had from this."""
    async with connection(target) as client:
        keys = await _keys(client, target.workspace)
    if not keys:
        print(f"No API keys in workspace {target.workspace}.")
        return 0
    table_console().print(keys_table(keys.values(), now=datetime.now(UTC)))
    return 0


def keys_table(keys: Iterable[ApiKey], *, now: datetime) -> Table:
    """One row for each key, by name."""
    table = Table(box=None, pad_edge=False)
    for column in ("NAME", "ID", "DEPLOYMENTS", "CREATED", "EXPIRES"):
        table.add_column(column)
    for key in sorted(keys, key=lambda k: (k.name, k.id)):
        past = key.expires is not None and key.expires <= now
        until = f"{key.expires:%Y-%m-%d %H:%M}" if key.expires else "never"
        table.add_row(
            Text(key.name),
            Text(key.id),
            Text(", ".join(key.deployments) if key.deployments is not None else "all"),
            Text(key.created or "-"),
            Text(f"{until} (over)" if past else until, style="red" if past else ""),
        )
    return table


async def revoke_command(which: str, target: Target) -> int:
    """Removes a key, by its name or id."""
    async with connection(target) as client:
        keys = await _keys(client, target.workspace)
        found = [key for key in keys.values() if which in (key.id, key.name)]
        if len(found) != 1:
            ids = ", ".join(key.id for key in found)
            raise CommandError(
                f"several keys are called {which!r}: name one by its id: {ids}"
                if found
                else f"workspace {target.workspace} has no key {which!r}:"
                " `beamlit apikey list` shows those it has"
            )
        await client.merge_patch(
            SECRETS,
            SECRET_NAME,
            {"data": {found[0].id: None}},
            target.workspace,
            field_manager=FIELD_MANAGER,
        )
    print(
        f"Key {found[0].name!r} ({found[0].id}) is revoked: no gateway takes it a minute from now."
    )
    return 0


def span(text: str) -> timedelta:
    """How long a key is good: ``30m``, ``12h``, ``90d``.

    Raises:
        CommandError: it is not written so.
    """
    found = _SPAN.fullmatch(text)
    if found is None:
        raise CommandError(
            f"--expires {text!r} is no length of time: write 30m, 12h or 90d", status=BAD_INPUT
        )
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


async def _keys(client: KubeClient, workspace: str) -> dict[str, ApiKey]:
    try:
        secret = await client.get(SECRETS, SECRET_NAME, workspace)
    except ApiError as error:
        if error.not_found:
            return {}
        raise
    data = {id: base64.b64decode(text).decode() for id, text in (secret.get("data") or {}).items()}
    return parse_keys(data)


async def _put(client: KubeClient, workspace: str, id: str, document: str) -> None:
    data = {id: base64.b64encode(document.encode()).decode()}
    while True:
        try:
            await client.merge_patch(
                SECRETS, SECRET_NAME, {"data": data}, workspace, field_manager=FIELD_MANAGER
            )
            return
        except ApiError as error:
            if not error.not_found:
                raise
        try:
            await client.create(SECRETS, _secret(workspace, data), workspace)
            return
        except ApiError as error:
            # Somebody else made it meanwhile.
            if error.reason != "AlreadyExists":
                raise


def _secret(workspace: str, data: dict[str, str]) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": SECRET_NAME,
            "namespace": workspace,
            "labels": {labels.API_KEYS: "true"},
        },
        "type": "beamlit.com/api-keys",
        "data": data,
    }
