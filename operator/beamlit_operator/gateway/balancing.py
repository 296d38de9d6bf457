"""``spec.endpoint`` as the gateway carries it out: limits, and which replica gets a request. Pure.

Read leniently: what the schema would refuse and got in all the same counts as not said, because one
value that Envoy refuses would keep the whole route table from changing.

=====================  ========================  =================================================
``maxConcurrency``     ``loadBalancing``         a request goes to
=====================  ========================  =================================================
unset or 0             ``LeastRequest``          the less busy of two ready pods taken at random
unset or 0             ``PromptPrefix``          the pod that the prompt's beginning hashes to;
                                                 another one while that pod has more than 125 %
                                                 of the average in progress
set                    ``LeastRequest``          the least busy of all ready pods
set                    ``PromptPrefix``          as without a limit
...and that pod has    either                    the same; it waits there for a place
``maxConcurrency``
set, all places and    either                    429 ``Overloaded``
``maxQueued`` taken
any                    ``PromptPrefix``, and no  any ready pod
                       prompt could be read
=====================  ========================  =================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from beamlit_operator.api.endpoint import DEFAULT_MAX_QUEUED, DEFAULT_PREFIX_LENGTH
from beamlit_operator.gateway.protos import (
    HeaderMutation,
    LeastRequest,
    Lua,
    LuaPerRoute,
    Maglev,
    UpstreamCodec,
    packed,
)

PREFIX_FILTER = "prompt_prefix"
PREFIX_HEADER = "x-beamlit-prompt-prefix"
"""Inside Envoy only: a digest of the prompt's beginning, by which the pod is chosen."""

LARGEST_HASHED = 256 * 1024
"""Bytes of the largest body that is read for its prompt; larger ones go to any pod. Envoy holds the
whole body meanwhile, and would answer 413 to one above its buffer (1 MiB). 256 KiB of text are some
64,000 tokens."""

BALANCE_FACTOR = 125
"""Percent of the average load up to which a pod keeps its prompts: bounded loads (Mirrokni,
Thorup, Zadimoghaddam 2018), with the factor that KubeAI uses."""

TABLE_SIZE = 16_381
"""Places in a cluster's table of pods (Maglev; a prime). When one of three pods goes, one in 200
of the others' prompts moves too; with Envoy's ring, whose points for each pod grow as pods go, it
would be one in eight. Four times as many places move half as many and take four times as long to
lay."""

_LARGEST = 100_000


@dataclass(frozen=True, slots=True)
class Balancing:
    """How one deployment's requests are handed to its pods; 0 is none."""

    max_concurrency: int = 0
    max_queued: int = 0
    prefix_length: int = 0

    @property
    def limited(self) -> bool:
        """Whether a pod gets only so many requests at a time."""
        return self.max_concurrency > 0


def parse_balancing(endpoint: object) -> Balancing:
    """Reads ``spec.endpoint``."""
    if not isinstance(endpoint, dict):
        return Balancing()
    limit = _number(endpoint.get("maxConcurrency"))
    queued = _number(endpoint.get("maxQueued")) or DEFAULT_MAX_QUEUED
    by_prefix = endpoint.get("loadBalancing") == "PromptPrefix"
    length = _number(endpoint.get("prefixLength")) or DEFAULT_PREFIX_LENGTH
    return Balancing(limit, queued if limit else 0, length if by_prefix else 0)


def _number(value: object) -> int:
    return value if isinstance(value, int) and 0 < value <= _LARGEST else 0


def prefix_filter() -> dict[str, Any]:
    """The filter that reads prompts. It does nothing but where a route names the script: not a
    filter that is off by default, for which of those run is settled before the route that a body's
    ``model`` leads to is known."""
    script = Lua(
        source_codes={PREFIX_FILTER: {"inline_string": _script()}},
        clear_route_cache={"value": False},
    )
    return {"name": PREFIX_FILTER, "typed_config": packed(script)}


def prefix_route(balancing: Balancing) -> dict[str, Any]:
    """What a route says beside its action, to have prompts read."""
    if not balancing.prefix_length:
        return {}
    settings = {"length": balancing.prefix_length, "largest": LARGEST_HASHED}
    asked = LuaPerRoute(name=PREFIX_FILTER, filter_context=settings)
    return {"typed_per_filter_config": {PREFIX_FILTER: packed(asked)}}


def policy(balancing: Balancing) -> dict[str, Any]:
    """How a cluster chooses among its pods."""
    if not balancing.prefix_length:
        # With a limit all pods are looked at: of two taken at random both may be busy, and the
        # request would wait for one of them while a third is free.
        if balancing.limited:
            scan = {
                "name": "envoy.load_balancing_policies.least_request",
                "typed_config": packed(LeastRequest(selection_method="FULL_SCAN")),
            }
            return {"load_balancing_policy": {"policies": [{"typed_extension_config": scan}]}}
        return {"lb_policy": "LEAST_REQUEST"}
    # Not by the hash of the route, by which a sticky caller's revision is chosen. Without the
    # header there is no hash, and any pod is taken.
    maglev = Maglev(
        table_size={"value": TABLE_SIZE},
        consistent_hashing_lb_config={
            "hash_balance_factor": {"value": BALANCE_FACTOR},
            "hash_policy": [{"header": {"header_name": PREFIX_HEADER}}],
        },
    )
    hashed = {"name": "envoy.load_balancing_policies.maglev", "typed_config": packed(maglev)}
    return {"load_balancing_policy": {"policies": [{"typed_extension_config": hashed}]}}


def upstream_filters(balancing: Balancing) -> list[dict[str, Any]]:
    """Takes the header off again. Filters of the cluster run after the pod was chosen; what a route
    removes is gone before."""
    if not balancing.prefix_length:
        return []
    strip = HeaderMutation(mutations={"request_mutations": [{"remove": PREFIX_HEADER}]})
    return [
        {"name": "strip_prompt_prefix", "typed_config": packed(strip)},
        {"name": "codec", "typed_config": packed(UpstreamCodec())},
    ]


@cache
def _script() -> str:
    return files("beamlit_operator.gateway").joinpath("prompt_prefix.lua").read_text("utf-8")
