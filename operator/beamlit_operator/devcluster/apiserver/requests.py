"""What requests have in common: their body and options, and how a failure is answered."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from beamlit_operator.devcluster.apiserver.access import USER
from beamlit_operator.devcluster.apiserver.bodies import decoded
from beamlit_operator.devcluster.apiserver.errors import bad_request, status_body
from beamlit_operator.devcluster.apiserver.preparing import Options
from beamlit_operator.devcluster.apiserver.store import encode
from beamlit_operator.kube import ApiError, Json


def failure(error: ApiError) -> web.Response:
    """The Status that travels for ``error``."""
    response = json_answer(status_body(error), error.status or 500)
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(max(1, int(error.retry_after)))
    return response


def json_answer(
    document: Json, status: int = 200, *, media_type: str = "application/json"
) -> web.Response:
    """A document."""
    return web.Response(body=encode(document), status=status, headers={"Content-Type": media_type})


async def body_of(request: web.Request, *, empty: Any = None) -> Any:
    """The decoded body; ``empty`` when there is none.

    Raises:
        ApiError: 400 or 415.
    """
    raw = await request.read()
    if not raw and empty is not None:
        return empty
    media_type = "" if request.content_type == "application/octet-stream" else request.content_type
    return decoded(raw, media_type)


def options_of(request: web.Request) -> Options:
    """How the client wants its write done.

    Raises:
        ApiError: 400.
    """
    query = request.query
    dry_run = query.getall("dryRun", [])
    if any(value != "All" for value in dry_run):
        raise bad_request(f'dryRun: Unsupported value: {dry_run}: supported values: "All"')
    validation = query.get("fieldValidation", "") or "Warn"
    if validation not in ("Strict", "Warn", "Ignore"):
        raise bad_request(f"fieldValidation: Unsupported value: {validation!r}")
    agent = request.headers.get("User-Agent", "").split("/", 1)[0] or "unknown"
    manager = query.get("fieldManager") or agent
    if len(manager) > 128 or not manager.isprintable():
        raise bad_request("fieldManager must be printable and at most 128 characters long")
    return Options(
        manager=manager,
        dry_run=bool(dry_run),
        validation=validation,  # type: ignore[arg-type]
        force=query.get("force") == "true",
        user=request[USER],
    )


def number_of(text: str | None, name: str) -> int:
    """A non-negative integer out of a query parameter, 0 when it is absent.

    Raises:
        ApiError: 400.
    """
    if not text:
        return 0
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise bad_request(f"{name}: Invalid value: {text!r}: must be a non-negative integer")
    return int(text)
