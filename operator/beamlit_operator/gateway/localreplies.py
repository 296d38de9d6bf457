"""Errors that Envoy makes itself, put into our shape (:mod:`.replies`). Pure.

The flags are those of Envoy's access log documentation, the details those of its "response code
details"; the first mapper whose filter matches is taken.
"""

from __future__ import annotations

from typing import Any

from beamlit_operator.gateway import names
from beamlit_operator.gateway.openai import OPENAI_PATH
from beamlit_operator.gateway.protos import CelFilter, packed
from beamlit_operator.gateway.replies import ErrorReason
from beamlit_operator.gateway.settings import GatewaySettings
from beamlit_operator.gateway.splitting import CHECK

UNANSWERED = 511
"""How the cold listener tells an agent that could not be asked from one that said no. Never seen by
a caller; the code means something else to the rest of the world (RFC 6585), and nothing here."""

IDEMPOTENT = "GET|HEAD|OPTIONS|TRACE|PUT|DELETE"
"""Methods whose requests may be sent twice (RFC 9110, 9.2.2)."""


def main_replies(settings: GatewaySettings) -> dict[str, Any]:
    """Errors of the main listener. Direct responses of routes have no flag and pass as they are."""
    too_large = (
        f"a body that is routed by its `model` may have {settings.openai_body_limit} bytes; "
        "larger ones go to /<workspace>/models/<model>/..."
    )
    limits = [
        (
            431,
            ErrorReason.HEADERS_TOO_LARGE,
            f"a request may have {settings.max_headers} headers "
            f"of {settings.max_headers_kb} KiB in all",
        ),
        (408, ErrorReason.REQUEST_TIMEOUT, "nothing more of the request came for too long"),
    ]
    return {
        "mappers": [
            _overloaded(),
            {
                "filter": _details(
                    f"response.code_details == 'rbac_access_denied_matched_policy[{CHECK}]'"
                ),
                "status_code": {"value": 404},
                "body_format_override": _error_format(
                    ErrorReason.UNKNOWN_REVISION,
                    "this deployment has no revision of the name that the header "
                    f"{names.REVISION_HEADER} asks for; its status lists those it has",
                    **_OPENAI,
                ),
            },
            *(
                {
                    "filter": _status(code),
                    "body_format_override": _error_format(reason, message),
                }
                for code, reason, message in limits
            ),
            {
                "filter": _status(413),
                "body_format_override": _error_format(
                    ErrorReason.PAYLOAD_TOO_LARGE, too_large, **_OPENAI
                ),
            },
            _out_of_memory(),
            {
                # Not HTTP as RFC 9112 has it: a path, a host, a length that cannot be.
                "filter": {"or_filter": {"filters": [_own(400), _own(426)]}},
                "body_format_override": _error_format(ErrorReason.BAD_REQUEST),
            },
            {
                # A name that begins like that of a model, and goes on.
                "filter": {"and_filter": {"filters": [_flagged(["NR"]), _path_of_a_model()]}},
                "body_format_override": _error_format(
                    ErrorReason.UNKNOWN_MODEL,
                    "there is no model of this name in this workspace: %REQ(:PATH):200%",
                    **_OPENAI,
                ),
            },
            {
                # No route; or a target that is no path, such as *.
                "filter": _own(404),
                "body_format_override": _error_format(ErrorReason.NOT_FOUND),
            },
            {
                # The model server took the request and did not answer to the end.
                "filter": _flagged(["UC", "UR", "LR", "UPE"]),
                "status_code": {"value": 502},
                "body_format_override": _error_format(ErrorReason.UPSTREAM_RESET),
            },
            {
                # Envoy's 507: the pod was lost before it answered, and the body is too large to be
                # kept for another one (`routes`).
                "filter": _status(507),
                "status_code": {"value": 503},
                "headers_to_add": [_RETRY_AFTER],
                "body_format_override": _error_format(
                    ErrorReason.UNAVAILABLE,
                    "the replica went away while the body was sent; send it again",
                ),
            },
            {
                "filter": _flagged(["UH", "UF", "URX", "NC"]),
                "headers_to_add": [_RETRY_AFTER],
                "body_format_override": _error_format(ErrorReason.UNAVAILABLE),
            },
            {
                "filter": _flagged(["DPE", "IH"]),
                "body_format_override": _error_format(ErrorReason.BAD_REQUEST),
            },
            {
                "filter": _flagged(["SI", "UT", "UMSDR", "OM", "DO"]),
                "body_format_override": _error_format(ErrorReason.GATEWAY_ERROR),
            },
        ]
    }


def cold_replies() -> dict[str, Any]:
    """Marks answers after which the main listener sends the request again.

    No model server has seen it: ``UF``, the pod refused the connection; ``UH`` and ``NC``, the pods
    left their cluster, or the cluster went, while the agent answered; :data:`UNANSWERED`, the agent
    could not be asked, for it restarts. Or one may have, and it may be repeated: ``UC`` and its
    like, the pod broke off. What may not be repeated is a 502.
    """
    broke_off = _flagged(["UC", "UR", "LR", "UPE"])
    repeatable = {
        "header_filter": {
            "header": {
                "name": ":method",
                "string_match": {"safe_regex": {"regex": IDEMPOTENT}},
            }
        }
    }
    mark = {
        "header": {"key": names.RETRY_HEADER, "value": "1"},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }
    return {
        "mappers": [
            _overloaded(),
            {
                "filter": _flagged(["UF", "UH", "NC"]),
                "headers_to_add": [mark],
                "body_format_override": _error_format(ErrorReason.UNAVAILABLE),
            },
            {
                "filter": {"and_filter": {"filters": [broke_off, repeatable]}},
                "status_code": {"value": 502},
                "headers_to_add": [mark],
                "body_format_override": _error_format(ErrorReason.UPSTREAM_RESET),
            },
            {
                "filter": broke_off,
                "status_code": {"value": 502},
                "body_format_override": _error_format(ErrorReason.UPSTREAM_RESET),
            },
            {
                "filter": _status(UNANSWERED),
                "status_code": {"value": 503},
                "headers_to_add": [mark, _RETRY_AFTER],
                "body_format_override": _error_format(
                    ErrorReason.GATEWAY_ERROR,
                    "this gateway's agent, which starts what sleeps, does not answer; try again",
                ),
            },
        ]
    }


def _error_format(
    reason: str, message: str = "%RESPONSE_CODE_DETAILS%", **more: object
) -> dict[str, Any]:
    error = {"code": "%RESPONSE_CODE%", "reason": reason, "message": message, **more}
    return {"json_format": {"error": error}}


_OPENAI = {"type": "invalid_request_error", "param": None}
"""What OpenAI's clients look for in an error, beside what all of ours have."""


def _flagged(flags: list[str]) -> dict[str, Any]:
    return {"response_flag_filter": {"flags": flags}}


_RETRY_AFTER = {
    "header": {"key": "retry-after", "value": "1"},
    "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
}


def _overloaded() -> dict[str, Any]:
    """Every place at the pods and in the queue is taken. Only clusters with a limit overflow."""
    error = {
        "code": 429,
        "reason": ErrorReason.OVERLOADED,
        "message": "every replica works on spec.endpoint.maxConcurrency requests of this gateway "
        "and spec.endpoint.maxQueued more wait here; try again shortly",
    }
    return {
        "filter": _flagged(["UO"]),
        "status_code": {"value": 429},
        "headers_to_add": [_RETRY_AFTER],
        "body_format_override": {"json_format": {"error": error}},
    }


def _out_of_memory() -> dict[str, Any]:
    """Envoy has as much as it may (``max_envoy_heap``), and says so without a flag."""
    retry = {
        "header": {"key": "retry-after", "value": "5"},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }
    return {
        "filter": _details("response.code_details == 'overload'"),
        "headers_to_add": [retry],
        "body_format_override": _error_format(
            ErrorReason.OVERLOADED, "this gateway has no memory for more; try again shortly"
        ),
    }


def _status(code: int) -> dict[str, Any]:
    value = {"default_value": code, "runtime_key": f"beamlit.status.{code}"}
    return {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}


def _path_of_a_model() -> dict[str, Any]:
    regex = f"/[^/]+(/models/|{OPENAI_PATH}models/).*"
    return {
        "header_filter": {
            "header": {"name": ":path", "string_match": {"safe_regex": {"regex": regex}}}
        }
    }


def _own(code: int) -> dict[str, Any]:
    """An error of Envoy's own with this code, and no direct response of a route."""
    own = _details("response.code_details != 'direct_response'")
    return {"and_filter": {"filters": [_status(code), own]}}


def _details(expression: str) -> dict[str, Any]:
    cel = packed(CelFilter(expression=expression))
    return {"extension_filter": {"name": "details", "typed_config": cel}}
