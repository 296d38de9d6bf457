"""The patch formats other than apply: JSON Patch, merge patch, strategic merge patch."""

from __future__ import annotations

import copy
from typing import Any, Final

import jsonpatch
import jsonpointer

from beamlit_operator.devcluster.apiserver.errors import (
    bad_request,
    unsupported_media,
)
from beamlit_operator.devcluster.apiserver.served import Served
from beamlit_operator.devcluster.apiserver.strategic import strategic_merge
from beamlit_operator.kube import ApiError, Json

JSON_PATCH: Final = "application/json-patch+json"
MERGE_PATCH: Final = "application/merge-patch+json"
STRATEGIC_PATCH: Final = "application/strategic-merge-patch+json"
APPLY_PATCH: Final = "application/apply-patch+yaml"

LONGEST_JSON_PATCH: Final = 10_000
"""Operations in one JSON patch, as in Kubernetes."""


def patched(item: Json, patch: Any, media_type: str, served: Served) -> Json:
    """``item`` changed by ``patch``; neither is modified.

    Raises:
        ApiError: 400, 415 or 422 for a patch that is malformed or does not apply.
    """
    if media_type == JSON_PATCH:
        return _json_patch(item, patch)
    allowed = [JSON_PATCH, MERGE_PATCH, APPLY_PATCH]
    if not served.custom:
        allowed.append(STRATEGIC_PATCH)
    if media_type not in allowed:
        raise unsupported_media(media_type, allowed)
    if not isinstance(patch, dict):
        raise bad_request("the patch must be an object")
    if media_type == STRATEGIC_PATCH:
        return strategic_merge(item, patch, served.root)
    return merge_patch(item, patch)


def merge_patch(item: Json, patch: Json) -> Json:
    """RFC 7386."""
    result = dict(item)
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, dict):
            known = result.get(name)
            result[name] = merge_patch(known if isinstance(known, dict) else {}, value)
        else:
            result[name] = value
    return result


def _json_patch(item: Json, patch: Any) -> Json:
    if not isinstance(patch, list):
        raise bad_request("a JSON patch must be a list of operations")
    if len(patch) > LONGEST_JSON_PATCH:
        raise ApiError(
            413,
            "RequestEntityTooLarge",
            f"The allowed maximum operations in a JSON patch is {LONGEST_JSON_PATCH}, got "
            f"{len(patch)}",
        )
    if not all(isinstance(operation, dict) for operation in patch):
        raise bad_request("every operation of a JSON patch must be an object")
    try:
        result = jsonpatch.JsonPatch(patch).apply(copy.deepcopy(item))
    except (
        jsonpatch.JsonPatchException,
        TypeError,
        AttributeError,
        jsonpointer.JsonPointerException,
        KeyError,
        IndexError,
        ValueError,
    ) as error:
        raise ApiError(
            422,
            "Invalid",
            f"the server rejected our request due to an error in our request: {error}",
        ) from error
    if not isinstance(result, dict):
        raise bad_request("the JSON patch does not leave an object")
    return result
