"""What requests have in common: their body and options, and how a failure is answered."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import yaml
from aiohttp import web

from beamlit_operator.devcluster.apiserver.access import USER
from beamlit_operator.devcluster.apiserver.bodies import decoded
from beamlit_operator.devcluster.apiserver.errors import (
    Cause,
    UnknownPathError,
    bad_request,
    bad_value,
    forbidden_field,
    invalid,
    not_supported,
    required,
    status_body,
)
from beamlit_operator.devcluster.apiserver.patches import APPLY_PATCH
from beamlit_operator.devcluster.apiserver.preparing import Options
from beamlit_operator.devcluster.apiserver.store import encode
from beamlit_operator.kube import ApiError, Json


def failure(error: ApiError) -> web.Response:
    """The Status that travels for ``error``."""
    if isinstance(error, UnknownPathError):
        return web.Response(text="404 page not found\n", status=404)
    response = json_answer(status_body(error), error.status or 500)
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(max(1, int(error.retry_after)))
    return response


def json_answer(
    document: Json, status: int = 200, *, media_type: str = "application/json"
) -> web.Response:
    """A document."""
    return web.Response(body=encode(document), status=status, headers={"Content-Type": media_type})


async def body_of(
    request: web.Request, *, empty: Any = None, doubled: list[str] | None = None
) -> Any:
    """The decoded body; ``empty`` when there is none. ``doubled`` takes the keys given twice.

    Raises:
        ApiError: 400 or 415.
    """
    raw = await request.read()
    if not raw and empty is not None:
        return empty
    media_type = "" if request.content_type == "application/octet-stream" else request.content_type
    return decoded(raw, media_type, doubled=doubled)


def with_warnings(answer: web.Response, warnings: list[str]) -> web.Response:
    """The answer with what the client should be told, each once."""
    for warning in dict.fromkeys(warnings):
        answer.headers.add("Warning", f"299 - {json.dumps(warning, ensure_ascii=True)}")
    return answer


def in_yaml(answer: web.Response) -> web.Response:
    """The same answer in YAML, if it is in JSON."""
    body = answer.body
    if answer.content_type != "application/json" or not isinstance(body, bytes):
        return answer
    text = yaml.dump(json.loads(body), Dumper=_Dumper, default_flow_style=False, allow_unicode=True)
    headers = {"Content-Type": "application/yaml"}
    found = web.Response(body=text.encode(), status=answer.status, headers=headers)
    for name in ("Warning", "Retry-After"):
        for value in answer.headers.getall(name, []):
            found.headers.add(name, value)
    return found


_Dumper: Final = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

_KINDS: Final = {
    "POST": "CreateOptions",
    "PUT": "UpdateOptions",
    "PATCH": "PatchOptions",
    "DELETE": "DeleteOptions",
}


def options_of(request: web.Request, deletion: Any = None) -> Options:
    """How the client wants its write done.

    ``deletion`` are the DeleteOptions in the body: where there are any, they count instead of the
    query (k8s.io/apiserver, endpoints/handlers/delete.go).

    Raises:
        ApiError: 422.
    """
    query = request.query
    dry_run = query.getall("dryRun", [])
    if isinstance(deletion, dict) and deletion:
        given = deletion.get("dryRun") or []
        dry_run = given if isinstance(given, list) else [given]
    validation = query.get("fieldValidation", "")
    manager = query.get("fieldManager", "")
    causes = list(_manager_causes(manager))
    if request.method == "PATCH":
        apply = request.content_type == APPLY_PATCH
        if apply and not manager:
            causes.append(required("fieldManager", "is required for apply patch"))
        if not apply and query.get("force"):
            causes.append(forbidden_field("force", "may not be specified for non-apply patch"))
    if any(value != "All" for value in dry_run):
        text = json.dumps(dry_run)
        causes.append(
            Cause(
                "FieldValueNotSupported",
                f'Unsupported value: {text}: supported values: "All"',
                "dryRun",
            )
        )
    if validation not in ("", "Strict", "Warn", "Ignore"):
        allowed = ["", "Ignore", "Strict", "Warn"]
        causes.append(not_supported("fieldValidation", validation, allowed))
    if causes:
        raise invalid("meta.k8s.io", _KINDS.get(request.method, "CreateOptions"), "", causes)
    agent = request.headers.get("User-Agent", "").split("/", 1)[0] or "unknown"
    return Options(
        manager=manager or agent,
        dry_run=bool(dry_run),
        validation=validation or "Warn",  # type: ignore[arg-type]
        force=query.get("force") == "true",
        user=request[USER],
    )


def _manager_causes(manager: str) -> Iterator[Cause]:
    if len(manager.encode("utf-8", "surrogateescape")) > 128:
        yield Cause("FieldValueTooLong", "Too long: may not be more than 128 bytes", "fieldManager")
    for place, char in enumerate(manager):
        if not char.isprintable():
            why = f"invalid character U+{ord(char):04X} (at position {place})"
            yield bad_value("fieldManager", manager, why)


def check_list_options(query: Mapping[str, str], current: int) -> None:
    """Refuses a list or watch whose versions make no sense; ``current`` is the newest version.

    The rules are those of ``ValidateListOptions`` in k8s.io/apimachinery.

    Raises:
        ApiError: 422, 500 (a watch from what is no version) or 504 (a list from the future).
    """
    version, match = query.get("resourceVersion", ""), query.get("resourceVersionMatch", "")
    watching = query.get("watch") in ("true", "1")
    streamed = query.get("sendInitialEvents")
    field = "resourceVersionMatch"
    causes: list[Cause] = []
    if watching:
        if streamed is not None and match != "NotOlderThan":
            why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
            causes.append(forbidden_field(field, why))
        if streamed is None and match:
            why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
            causes.append(forbidden_field(field, why))
            if match != "NotOlderThan":
                causes.append(not_supported(field, match, ["NotOlderThan"]))
    elif match:
        if not version:
            why = "resourceVersionMatch is forbidden unless resourceVersion is provided"
            causes.append(forbidden_field(field, why))
        if query.get("continue"):
            why = "resourceVersionMatch is forbidden when continue is provided"
            causes.append(forbidden_field(field, why))
        if match not in ("Exact", "NotOlderThan"):
            causes.append(not_supported(field, match, ["Exact", "NotOlderThan", ""]))
        elif match == "Exact" and version == "0":
            why = 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
            causes.append(forbidden_field(field, why))
    if streamed is not None and not watching:
        why = "sendInitialEvents is forbidden for list"
        causes.append(forbidden_field("sendInitialEvents", why))
    if causes:
        raise invalid("meta.k8s.io", "ListOptions", "", causes)
    if watching:
        check_version(version)
    elif version:
        check_known(number_of(version, "invalid resource version: resourceVersion"), current)


def check_version(version: str) -> None:
    """Refuses what is no version, as a GET or a watch does.

    Raises:
        ApiError: 500, without a reason.
    """
    if version and not _is_number(version):
        raise ApiError(
            500,
            "",
            f'resourceVersion: Invalid value: "{version}": strconv.ParseUint: parsing '
            f'"{version}": invalid syntax',
        )


def check_known(version: int, current: int) -> None:
    """Refuses a version that does not exist yet.

    Raises:
        ApiError: 504.
    """
    if version > current:
        cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
        raise ApiError(
            504,
            "Timeout",
            f"Timeout: Too large resource version: {version}, current: {current}",
            retry_after=1.0,
            details={"causes": [cause], "retryAfterSeconds": 1},
        )


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18


def number_of(text: str | None, name: str) -> int:
    """A non-negative integer out of a query parameter, 0 when it is absent.

    Raises:
        ApiError: 400.
    """
    if not text:
        return 0
    if not _is_number(text):
        raise bad_request(
            f'{name}: Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax'
        )
    return int(text)
