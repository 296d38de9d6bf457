"""What the gateway does with the requests of a deployment: who may call, limits, which replica."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from beamlit_operator.api.meta import Part
from beamlit_operator.api.schema import rule, rules

DEFAULT_MAX_QUEUED = 100
"""Requests that may wait where `maxConcurrency` is set and `maxQueued` is not."""

DEFAULT_PREFIX_LENGTH = 256
"""Characters of the prompt that choose the replica, where `prefixLength` is not set. Longer than
most opening phrases, shorter than most system prompts."""


class Endpoint(Part):
    """What every gateway does with the deployment's requests. Changing it restarts nothing."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.maxQueued) || (has(self.maxConcurrency) && self.maxConcurrency > 0)",
                "maxQueued needs maxConcurrency: without that limit no request waits",
                fieldPath=".maxQueued",
            ),
            rule(
                "!has(self.prefixLength) || self.loadBalancing == 'PromptPrefix'",
                "prefixLength is used by loadBalancing PromptPrefix only: set that, or remove it",
                fieldPath=".prefixLength",
            ),
        )
    )

    public: bool = False
    """Whether everybody who reaches the gateway may call the deployment, without a token. Counts
    where the gateway authenticates callers; says nothing where it does not."""
    max_concurrency: int | None = Field(default=None, ge=0, le=100_000)
    """The most requests that one replica gets from one gateway at a time; no limit when 0 or
    unset."""
    max_queued: int | None = Field(default=None, ge=1, le=100_000)
    """How many requests wait at a gateway while all replicas are at `maxConcurrency`; 100 when
    unset. One more is answered 429, reason `Overloaded`."""
    load_balancing: Literal["LeastRequest", "PromptPrefix"] = "LeastRequest"
    """`LeastRequest` gives a request to the less busy of two replicas. `PromptPrefix` gives prompts
    that begin alike to the same replica, for LLM servers with a prefix cache, as long as that
    replica is not much busier than the others."""
    prefix_length: int | None = Field(default=None, ge=1, le=65_536)
    """How many characters of the prompt have to be alike; 256 when unset."""
