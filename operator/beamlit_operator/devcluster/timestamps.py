"""Times as the Kubernetes API writes them: RFC 3339 in UTC, whole seconds or microseconds."""

from __future__ import annotations

from datetime import UTC, datetime


def now_utc() -> datetime:
    """The wall clock; the only place of the embedded cluster's workload side that reads it."""
    return datetime.now(UTC)


def written(moment: datetime) -> str:
    """``metav1.Time``: whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def written_micro(moment: datetime) -> str:
    """``metav1.MicroTime``: microseconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def read(text: str) -> datetime:
    """The moment an API timestamp names."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
