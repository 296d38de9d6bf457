"""Namespaces that are being deleted: nothing can be made in them, and nothing should be.

| the API server's answer                                   | ending |
|-----------------------------------------------------------|--------|
| 403, with a cause `NamespaceTerminating`                  | yes    |
| 404, and what was not found is the namespace              | yes    |
| anything else                                             | no     |

What was asked for goes too, as an event will tell: nothing is tried again, and nothing is said.
"""

from __future__ import annotations

from beamlit_operator.kube import ApiError


class EndingError(Exception):
    """Something was not made because its namespace is being deleted."""


def is_ending(error: ApiError) -> bool:
    """Whether the API server refuses because the namespace is being deleted, or is gone."""
    causes = error.details.get("causes") or ()
    if error.status == 403:
        return any(cause.get("reason") == "NamespaceTerminating" for cause in causes)
    return error.not_found and error.details.get("kind") == "namespaces"
