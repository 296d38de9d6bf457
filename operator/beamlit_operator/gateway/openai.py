"""The OpenAI-compatible address of a workspace, routed by the ``model`` in the body. Pure.

================================================  ==================================================
request                                           what becomes of it
================================================  ==================================================
``POST /{ws}/openai/v1/...``, ``model`` is        the deployment of the model in ``production``, as
``name``                                          ``/v1/...``, the body as sent
``model`` is ``name@environment``                 the same in that environment
...of a model that has no ``production``          404 ``UnknownEnvironment``
...of a deployment that refuses                   its refusal: ``Deactivated``, ``NotReady``, ...
any other ``model``                               404 ``UnknownModel``
no ``model``, an empty or a very long one         400 ``BadRequest``
a body that is not JSON                           400 ``BadRequest``
a body above the limit                            413 ``PayloadTooLarge`` (Envoy's own)
a content type that is not JSON                   415 ``UnsupportedMediaType``
another method than ``POST``                      405 ``MethodNotAllowed``
``GET /{ws}/openai/v1/models``                    what the workspace serves, as OpenAI lists models
``GET /{ws}/openai/v1/models/{id}``               one of them
================================================  ==================================================

How a body becomes a route: the first look at the route table finds no model yet and ends at the
route :func:`_reading`, which alone turns two filters on. ``json_to_metadata`` keeps the body until
it is complete and puts ``model`` into metadata; ``set_filter_state`` copies it to where the tree of
a route table may look for it (request headers and filter state, nothing else) and has the route
looked up again. Requests of all other routes pass both filters by.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from beamlit_operator.gateway import gate, trees
from beamlit_operator.gateway.catalog import DEFAULT_ENVIRONMENT, Deployment
from beamlit_operator.gateway.protos import (
    FilterConfig,
    JsonToMetadata,
    Message,
    Route,
    SetFilterState,
    packed,
)
from beamlit_operator.gateway.replies import ErrorReason, Reply
from beamlit_operator.gateway.routes import (
    UNKNOWN_WORKSPACE,
    direct,
    refusal_of,
    reply_route,
    serve,
)
from beamlit_operator.gateway.settings import GatewaySettings

OPENAI_PATH = "/openai/v1/"
"""What comes after the workspace in the path."""

LIST_LIMIT = 1 << 20
"""Bytes of the longest list of models, some 10,000 of them. Those beyond are left out, by the order
of the alphabet, and the list says ``"has_more": true``."""

MODEL_STATE = "beamlit.openai.model"
"""The filter state that holds the ``model`` of the body."""

_NAMESPACE = "beamlit.openai"
_MODEL, _PROBLEM, _READ = "model", "problem", "read"
_MISSING, _INVALID = "missing", "invalid"

_READER, _STATE = "openai_model", "openai_model_state"

_LOOKED_AT = 520
"""Characters of ``model`` that are looked at: more than two names of Kubernetes and an ``@``, so
that what is cut off can never make a name that exists."""

_NOWHERE = "beamlit_nowhere"
"""A cluster that does not exist: no request leaves by the route that only has bodies read."""

_JSON_TYPE = r"(?i)application/([a-z0-9.+_-]+\+)?json\s*(;.*)?"


def body_filters() -> list[dict[str, Any]]:
    """The two filters, off unless a route turns them on."""
    return [
        {"name": _READER, "disabled": True, "typed_config": packed(_read_model())},
        {"name": _STATE, "disabled": True, "typed_config": packed(_model_to_state())},
    ]


def _read_model() -> Message:
    def value(key: str, **fields: Any) -> dict[str, Any]:
        return {"metadata_namespace": _NAMESPACE, "key": key, **fields}

    selectors = [{"key": "model"}]
    return JsonToMetadata(
        request_rules={
            "rules": [
                {
                    "selectors": selectors,
                    "on_present": value(_MODEL, type="STRING"),
                    "on_missing": value(_PROBLEM, value={"string_value": _MISSING}),
                    "on_error": value(_PROBLEM, value={"string_value": _INVALID}),
                },
                {
                    # An empty model is neither present nor missing. This says that it was read.
                    "selectors": selectors,
                    "on_present": value(_READ, value={"string_value": _READ}),
                },
            ],
            # Which those may be, the routes decide.
            "allow_content_types_regex": {"regex": ".*"},
        }
    )


def _model_to_state() -> Message:
    model = f"%DYNAMIC_METADATA({_NAMESPACE}:{_MODEL}):{_LOOKED_AT}%"
    config = SetFilterState(
        on_request_headers=[
            {
                "object_key": MODEL_STATE,
                "factory_key": "envoy.string",
                "format_string": {
                    "text_format_source": {"inline_string": model},
                    "omit_empty_values": True,
                },
                "skip_if_empty": True,
            }
        ]
    )
    # clear_route_cache = true; field 2, younger than the published protos. Without it the request
    # would leave by the route that was found before its body was read.
    return SetFilterState.FromString(config.SerializeToString() + b"\x10\x01")


def calls(workspace: str, model: str, group: Sequence[Deployment]) -> bytes:
    """The branches for the values of ``model`` that mean a deployment of this one."""
    anything = {"prefix": f"/{workspace}/openai/"}
    default = next((d for d in group if d.environment == DEFAULT_ENVIRONMENT), None)
    if default is not None:
        unnamed = _call(anything, default)
    else:
        wanted = " or ".join(repr(_id(deployment)) for deployment in group)
        message = (
            f"model {model!r} of workspace {workspace!r} is not deployed in environment "
            f"{DEFAULT_ENVIRONMENT!r}, the default; ask for {wanted}"
        )
        unnamed = [_error(anything, Reply(404, ErrorReason.UNKNOWN_ENVIRONMENT, message))]
    return trees.branch(model, trees.routes(unnamed)) + b"".join(
        trees.branch(_full_id(deployment), trees.routes(_call(anything, deployment)))
        for deployment in group
    )


def _call(match: dict[str, Any], deployment: Deployment) -> list[Message]:
    refusal = refusal_of(deployment)
    if refusal is not None:
        return gate.led([_error(match, refusal)], deployment, by=gate.GATE_BODY)
    return serve(match, deployment, rewrite="/", by=gate.GATE_BODY)


def entries(group: Iterable[Deployment]) -> list[str]:
    """What the list of models says of those that are served: one JSON object for each."""
    return [_entry(deployment) for deployment in group if refusal_of(deployment) is None]


def _entry(deployment: Deployment) -> str:
    return json.dumps(
        {
            "id": _id(deployment),
            "object": "model",
            "created": _epoch(deployment.created),
            "owned_by": deployment.key.workspace,
        }
    )


def _id(deployment: Deployment) -> str:
    if deployment.environment == DEFAULT_ENVIRONMENT:
        return deployment.model
    return _full_id(deployment)


def _full_id(deployment: Deployment) -> str:
    return f"{deployment.model}@{deployment.environment}"


def _epoch(created: str) -> int:
    """Seconds since 1970 of an RFC 3339 time; 0 if it is none."""
    try:
        return int(datetime.fromisoformat(created).timestamp())
    except ValueError:
        return 0


def single(workspace: str, model: str, group: Sequence[Deployment]) -> bytes:
    """The branch of one model under ``GET .../models/``. A longer name finds no route in it, and
    gets Envoy's own 404 (:mod:`.listeners`)."""
    prefix = f"/{workspace}{OPENAI_PATH}models/"
    found = [
        route
        for deployment in group
        if refusal_of(deployment) is None
        for route in gate.led(
            [direct({"path": prefix + _id(deployment)}, 200, body=_entry(deployment))], deployment
        )
    ]
    return trees.branch(prefix + model, trees.routes(found)) if found else b""


def workspace_branches(
    workspace: str,
    *,
    calls: bytes,
    singles: bytes,
    listed: Iterable[str],
    public: bool,
    settings: GatewaySettings,
) -> bytes:
    """The branches of a workspace in the tree by path, from the parts of its models. ``public``:
    one of them may be called by everybody."""
    prefix = f"/{workspace}{OPENAI_PATH}"
    models = f"{prefix}models"
    listing = [
        direct({"path": models}, 200, body=_listing(listed)),
        _error({"prefix": f"{models}/"}, _unknown(workspace)),
        _error({"prefix": "/"}, _NOT_HERE),
    ]
    getting = trees.by_path(
        trees.branch(models, trees.routes(listing)) + singles,
        otherwise=trees.routes([_error({"prefix": "/"}, _unknown(workspace))]),
    )
    by_method = trees.by_method(
        trees.branch("GET", trees.nested(getting)),
        otherwise=trees.routes([_error({"prefix": "/"}, _ONLY_GET)]),
    )
    calling = trees.by_state(
        MODEL_STATE,
        calls,
        otherwise=trees.routes(_unread(_unknown(workspace), public=public, settings=settings)),
    )
    return trees.branch(models, trees.nested(by_method)) + trees.branch(
        prefix, trees.nested(calling)
    )


def _listing(entries: Iterable[str]) -> str:
    size, kept, cut = 100, [], False
    for entry in entries:
        size += len(entry) + 2
        if size > LIST_LIMIT:
            cut = True
            break
        kept.append(entry)
    more = ', "has_more": true' if cut else ""
    return f'{{"object": "list", "data": [{", ".join(kept)}]{more}}}'


def unmatched(settings: GatewaySettings) -> list[Message]:
    """For workspaces that are not known. Where callers are authenticated these do as the others do:
    it takes a right to learn which there are."""
    models = {"safe_regex": {"regex": f"/[^/]+{OPENAI_PATH}models(/.*)?"}}
    calls = {"safe_regex": {"regex": f"/[^/]+{OPENAI_PATH}.*"}}
    return [
        reply_route(models, UNKNOWN_WORKSPACE),
        *_unread(UNKNOWN_WORKSPACE, settings=settings, where=calls),
    ]


_EVERY_PATH: dict[str, Any] = {"prefix": "/"}


def _unread(
    unknown: Reply,
    *,
    settings: GatewaySettings,
    public: bool = False,
    where: dict[str, Any] = _EVERY_PATH,
) -> list[Message]:
    """For bodies without a model that is known, and those that were not read yet."""
    not_post = {**where, "headers": [_unless(":method", {"exact": "POST"})]}
    not_json = {
        **where,
        "headers": [_unless("content-type", {"safe_regex": {"regex": _JSON_TYPE}})],
    }

    def read(about: dict[str, Any], reply: Reply) -> Message:
        return _error({**where, "dynamic_metadata": [about]}, reply)

    found = [
        _error(not_post, _ONLY_POST),
        _error(not_json, _NOT_JSON),
        read(_metadata(_PROBLEM, _INVALID), _INVALID_JSON),
        read(_metadata(_PROBLEM, _MISSING), _NO_MODEL),
        read(_metadata(_MODEL), unknown),
        read(_metadata(_READ), _NO_MODEL),
        _reading(settings, where=where),
    ]
    if settings.authentication:
        # What is said of the request's form alone is for all who are authenticated: it is the same
        # for workspaces that do not exist.
        before, after = (0, 1), (2, 3, 5)
        for i in before:
            gate.noted(found[i], gate.ANYBODY)
        for i in after:
            gate.noted(found[i], gate.ANYBODY, by=gate.GATE_BODY)
        gate.noted(found[-1], gate.OPEN_LATER if public else gate.LATER)
    return found


def _reading(settings: GatewaySettings, *, where: dict[str, Any]) -> Message:
    """Has the body read, within limits of size and of time without a byte."""
    return Route(
        match=where,
        route={"cluster": _NOWHERE, "idle_timeout": {"seconds": settings.body_idle_timeout}},
        request_body_buffer_limit={"value": settings.openai_body_limit},
        typed_per_filter_config={
            _READER: packed(_read_model()),
            _STATE: packed(FilterConfig(config=packed(SetFilterState()))),
            **gate.reading(settings),
        },
    )


_ONLY_POST = Reply(405, ErrorReason.METHOD_NOT_ALLOWED, "only POST is answered here", allow="POST")
_ONLY_GET = Reply(
    405, ErrorReason.METHOD_NOT_ALLOWED, "the list of models can only be read", allow="GET"
)
_NOT_JSON = Reply(
    415,
    ErrorReason.UNSUPPORTED_MEDIA_TYPE,
    "the body has to be JSON and to say so: content-type: application/json",
)
_INVALID_JSON = Reply(400, ErrorReason.BAD_REQUEST, "the body is not valid JSON")
_NO_MODEL = Reply(
    400,
    ErrorReason.BAD_REQUEST,
    "the body needs a field `model` at its top level that names the model, "
    "as `name` or `name@environment`",
)
_NOT_HERE = Reply(404, ErrorReason.NOT_FOUND, "nothing is served here")


def _unknown(workspace: str) -> Reply:
    return Reply(
        404,
        ErrorReason.UNKNOWN_MODEL,
        f"workspace {workspace!r} serves no such model; "
        f"GET /{workspace}{OPENAI_PATH}models lists those it has",
    )


def _error(match: dict[str, Any], reply: Reply) -> Message:
    """An error with what OpenAI's clients look for, beside what all our errors have."""
    return reply_route({"prefix": "/", **match}, reply.for_openai())


def _unless(header: str, text: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": header,
        "string_match": text,
        "invert_match": True,
        "treat_missing_header_as_empty": True,
    }


def _metadata(key: str, value: str = "") -> dict[str, Any]:
    wanted = {"string_match": {"exact": value}} if value else {"present_match": True}
    return {"filter": _NAMESPACE, "path": [{"key": key}], "value": wanted}
