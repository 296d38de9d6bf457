"""What pods use of cpu and memory: measured by the kubelet, read by the metrics API and by the
HorizontalPodAutoscaler controller."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from beamlit_operator.kube import ObjectKey


@dataclass(frozen=True, slots=True)
class Use:
    """Of one container: cores, averaged over the window, and bytes at its end."""

    cores: float
    bytes: int


@dataclass(frozen=True, slots=True)
class PodUse:
    """Of one pod whose containers all run.

    Attributes:
        at: the end of the window.
        window_seconds: over which the cores are averaged.
        containers: by name.
    """

    at: datetime
    window_seconds: float
    containers: Mapping[str, Use]


UsageProvider = Callable[[], Awaitable[Mapping[ObjectKey, PodUse]]]
"""The use of every pod of which it is known."""
