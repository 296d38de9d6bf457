"""What a URL path asks for."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

from aiohttp import web

from beamlit_operator.devcluster.apiserver.errors import bad_request, no_such_path


@dataclass(frozen=True, slots=True)
class Target:
    """A resource path; ``namespace`` and ``name`` are empty when not in it."""

    group: str
    version: str
    plural: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""


def segments_of(raw_path: str) -> list[str]:
    """The decoded segments of a path.

    Raises:
        ApiError: 400 for segments that could be mistaken for something else once decoded.
    """
    parts = [unquote(part) for part in raw_path.strip("/").split("/")] if raw_path != "/" else []
    for part in parts:
        if part in ("", ".", "..") or "/" in part or "\\" in part or "\0" in part:
            raise bad_request(f"the path {raw_path!r} is not a valid resource path")
    return parts


def target_of(segments: list[str]) -> Target:
    """The resource that segments from ``api`` or ``apis`` on name.

    Raises:
        ApiError: 404.
    """
    if segments[0] == "api":
        group, version, rest = "", segments[1], segments[2:]
    else:
        group, version, rest = segments[1], segments[2], segments[3:]
    if not rest or len(rest) > 5:
        raise no_such_path()
    namespace = ""
    is_home = group == "" and rest[0] == "namespaces"
    own_parts = ("status", "finalize")
    if rest[0] == "namespaces" and len(rest) >= 3 and not (is_home and rest[2] in own_parts):
        namespace, rest = rest[1], rest[2:]
    if len(rest) > 3:
        raise no_such_path()
    plural, name, subresource = [*rest, "", ""][:3]
    return Target(group, version, plural, namespace, name, subresource)


def as_query(request: web.Request, segments: list[str]) -> tuple[web.Request, list[str]]:
    """A watch in the old way, by a path with ``watch`` in it, as one by the query."""
    place = 2 if segments[0] == "api" else 3
    if segments[0] not in ("api", "apis") or segments[place : place + 1] != ["watch"]:
        return request, segments
    found = segments[:place] + segments[place + 1 :]
    query = {**request.query, "watch": "true"}
    target = target_of(found)
    if target.name and not target.subresource:
        query["fieldSelector"] = f"metadata.name={target.name}"
        found = found[:-1]
    url = request.rel_url.with_path("/" + "/".join(found)).with_query(query)
    return request.clone(rel_url=url), found
