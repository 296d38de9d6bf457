"""Which workspace integration may be used for an origin, and why another is not. Pure.

| its annotation `beamlit.com/allowed` | its key `endpoint`    | used for                         |
|--------------------------------------|-----------------------|----------------------------------|
| none                                 | none                  | everything at the operator's Hub |
| has a pattern that matches           | none                  | that, at the operator's Hub      |
| none, or matches                     | the origin's endpoint | that, there                      |
| does not match                       | any                   | nothing; said when it matters    |
| any                                  | another               | nothing; said when it matters    |

The endpoint counts for stores that the credentials themselves are sent to, such as a Hub: who may
write a Model could have the integration's token sent to a server of theirs otherwise. A signature
made with S3's keys is good for one request, so there it does not count.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from beamlit_operator.api import labels
from beamlit_operator.kube import Json

ENDPOINT_KEY = "endpoint"
"""Of an integration's Secret: the only endpoint that its token is sent to."""

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Integration:
    """A workspace integration, without what is secret of it.

    Attributes:
        name: of its Secret.
        allowed: its annotation `beamlit.com/allowed`.
        endpoint: its key `endpoint`, normalised; None if it has none.
    """

    name: str
    allowed: str = ""
    endpoint: str | None = None

    def covers(self, subject: str) -> bool:
        """Whether the annotation lets it be used for a repository or bucket."""
        patterns = [part.strip() for part in self.allowed.split(",") if part.strip()]
        return not patterns or any(fnmatchcase(subject, pattern) for pattern in patterns)


@dataclass(frozen=True, slots=True)
class Choice:
    """The integration to use, or why those that exist are not.

    Attributes:
        name: of the Secret to use; None: none.
        withheld: a sentence about the one that could be meant; empty if there is none.
    """

    name: str | None
    withheld: str = ""


def integration(secret: Json) -> Integration:
    """What a labelled Secret says."""
    metadata = secret["metadata"]
    annotations = metadata.get("annotations") or {}
    endpoint = (secret.get("data") or {}).get(ENDPOINT_KEY)
    if endpoint is not None:
        try:
            endpoint = base64.b64decode(endpoint, validate=True).decode().strip()
        except (binascii.Error, ValueError):
            endpoint = ""  # agrees with nothing
    return Integration(
        name=str(metadata["name"]),
        allowed=str(annotations.get(labels.ALLOWED) or ""),
        endpoint=normalised(endpoint) if endpoint is not None else None,
    )


def choose(
    integrations: Iterable[Integration], subject: str, *, endpoint: str | None, usual: str | None
) -> Choice:
    """The first by name that may be used.

    Args:
        integrations: those of the workspace, of the origin's kind.
        subject: the repository or bucket.
        endpoint: where the credentials would be sent; None where they are not sent.
        usual: where those go that name no endpoint.
    """
    withheld = ""
    for each in sorted(integrations, key=lambda known: known.name):
        place = each.endpoint if each.endpoint is not None else normalised(usual or "")
        there = endpoint is None or place == normalised(endpoint)
        if there and each.covers(subject):
            return Choice(each.name)
        if there:
            withheld = (
                f"Secret {each.name} is an integration of this workspace, but its annotation"
                f" {labels.ALLOWED} ({each.allowed}) does not cover {subject}: add it there, or"
                " name a Secret in the origin"
            )
        elif not withheld:
            withheld = (
                f"the token of the integration {each.name} is not sent to {endpoint}: give its"
                f" Secret the key {ENDPOINT_KEY} of that value, or name a Secret in the origin"
            )
    return Choice(None, withheld)


def normalised(endpoint: str) -> str:
    """One writing for all urls of the same place."""
    try:
        parts = urlsplit(endpoint.strip())
        port = parts.port
    except ValueError:
        return endpoint
    host = (parts.hostname or "").lower()
    if ":" in host:
        host = f"[{host}]"
    where = host if port in (None, _PORTS.get(parts.scheme)) else f"{host}:{port}"
    return f"{parts.scheme}://{where}{parts.path.rstrip('/')}"
