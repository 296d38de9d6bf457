"""Lists: a consistent page of a collection, with selectors and continue tokens."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass

from beamlit_operator.devcluster.apiserver.errors import bad_request, expired
from beamlit_operator.devcluster.apiserver.selectors import Matcher
from beamlit_operator.devcluster.apiserver.store import SNAPSHOTS, Collection, Entry, Store


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a list: ``remaining`` is None when a selector makes it unknown."""

    entries: list[Entry]
    version: int
    token: str = ""
    remaining: int | None = None


def page(
    store: Store,
    collection: Collection,
    *,
    namespace: str | None,
    matcher: Matcher | None,
    limit: int,
    token: str,
) -> Page:
    """The entries in order of namespace and name, at most ``limit`` (0: all).

    A continued list shows the collection as it was on its first page.

    Raises:
        ApiError: 400 for a forged token, 410 for one whose list is forgotten.
    """
    start = 0
    if token:
        version, start = _parse(token)
        known = collection.snapshots.get(version)
        if known is None:
            raise expired(
                "The provided continue parameter is too old to display a consistent list result. "
                "You must start a new list without the continue parameter."
            )
        entries = known
    else:
        version = store.version
        entries = sorted(collection.select(namespace), key=lambda entry: entry.key)
        if 0 < limit < len(entries):
            collection.snapshots[version] = entries
            while len(collection.snapshots) > SNAPSHOTS:
                collection.snapshots.popitem(last=False)
    chosen: list[Entry] = []
    position = start
    for position in range(start, len(entries)):
        if limit and len(chosen) == limit:
            break
        entry = entries[position]
        if namespace is not None and entry.key.namespace != namespace:
            continue
        if matcher is None or matcher(entry.obj):
            chosen.append(entry)
    else:
        return Page(chosen, version)
    remaining = len(entries) - position if matcher is None else None
    return Page(chosen, version, _token(version, position), remaining)


def _token(version: int, start: int) -> str:
    raw = json.dumps({"v": "beamlit.com/v1", "rv": version, "start": start}).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _parse(token: str) -> tuple[int, int]:
    try:
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        fields = json.loads(raw)
        version, start = fields["rv"], fields["start"]
    except (binascii.Error, ValueError, KeyError, TypeError) as error:
        raise bad_request("continue key is not valid: use the token of the last page") from error
    if not isinstance(version, int) or not isinstance(start, int) or start < 0:
        raise bad_request("continue key is not valid: use the token of the last page")
    return version, start
