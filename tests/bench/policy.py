"""Effective policies per second on one core: ``make bench-policy``, first part.

10,000 deployments, each with 3 policies from its environment and 2 of its own, in three mixes:

* *teams*: 100 environments, 200 own policies between all deployments, as teams share them;
* *each its own*: every deployment has own policies that no other has;
* *first sight*: the same, and nothing remembered from before, as after a start.

The baseline does the set arithmetic alone: the same policies as sets of all their region names,
made beforehand, united and intersected by the same rules, with no result but the set. It explains
nothing and knows no containment. Both run alternately in this process; what counts is the processor
time.
"""

from __future__ import annotations

import gc
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.bench.report import Row, publish

from beamlit_operator.api import Environment, ModelDeployment, Policy
from beamlit_operator.policy import attachments as attaching
from beamlit_operator.policy import built_in, effective, effective_policy, locations, values_of

DEPLOYMENTS = 10_000
ENVIRONMENTS = 100
SHARED = 200
ROUNDS = 5
AIM = 20_000

PLACES = [("continent", name) for name in ("na", "eu", "as")]
PLACES += [("country", name) for name in ("us", "de", "fr", "ca", "jp", "gb", "ie", "in", "au")]
PLACES += [("location", name) for name in ("us-east-1", "eu-central-1", "eastus", "europe-west3")]
GPUS = [("gpu", name) for name in ("t4", "l4", "a100", "a100-80gb", "h100", "Tesla-V100")]


@dataclass(frozen=True)
class World:
    """What a round decides."""

    policies: dict[str, Policy]
    environments: list[Environment]
    deployments: list[ModelDeployment]

    def environment_of(self, number: int) -> Environment:
        return self.environments[number % len(self.environments)]


def policy(name: str, kind: str, chance: random.Random) -> Policy:
    entries = chance.sample(PLACES if kind == "location" else GPUS, 3)
    return Policy.model_validate(
        {
            "metadata": {"name": name},
            "spec": {"type": kind, f"{kind}s": [{"type": t, "name": n} for t, n in entries]},
        }
    )


def world(*, own: int) -> World:
    """``own`` policies of each type are shared out among the deployments."""
    chance = random.Random(8)
    policies: dict[str, Policy] = {}
    environments = []
    for number in range(ENVIRONMENTS):
        names = [f"e{number}-bound", f"e{number}-usual", f"e{number}-gpus"]
        for name, kind in zip(names, ("location", "location", "flavor"), strict=True):
            policies[name] = policy(name, kind, chance)
        attached = [{"name": name, "mandatory": name == names[0]} for name in names]
        environments.append(
            Environment.model_validate(
                {"metadata": {"name": f"e{number}"}, "spec": {"policies": attached}}
            )
        )
    for number in range(own):
        for kind in ("location", "flavor"):
            policies[f"{kind}-{number}"] = policy(f"{kind}-{number}", kind, chance)
    deployments = []
    for number in range(DEPLOYMENTS):
        mine = number if own >= DEPLOYMENTS else chance.randrange(own)
        other = number if own >= DEPLOYMENTS else chance.randrange(own)
        spec = {
            "model": "m",
            "environment": f"e{number % ENVIRONMENTS}",
            "policies": [{"name": f"location-{mine}"}, {"name": f"flavor-{other}"}],
        }
        deployments.append(
            ModelDeployment.model_validate({"metadata": {"name": f"d{number}"}, "spec": spec})
        )
    return World(policies, environments, deployments)


def ours(given: World) -> None:
    for number, deployment in enumerate(given.deployments):
        effective_policy(deployment, given.environment_of(number), policies=given.policies)


def flat_sets(given: World) -> dict[str, frozenset[str]]:
    """Every policy as the set of all the names that it contains in the end."""
    known = built_in()
    found = {}
    for name, each in given.policies.items():
        names: set[str] = set()
        for kind, value in values_of(each, catalogue=known):
            countries = known.countries_in(value) if kind == "continent" else (value,)
            if kind in ("continent", "country"):
                names.update(r for country in countries for r in known.locations_in(country))
            elif kind == "gpu":
                names.update(known.variants(value))
            else:
                names.add(value)
        found[name] = frozenset(names)
    return found


def plain(given: World, sets: dict[str, frozenset[str]]) -> None:
    types = {name: each.spec.type for name, each in given.policies.items()}
    for number, deployment in enumerate(given.deployments):
        attached = given.environment_of(number).spec.policies
        own = deployment.spec.policies
        for kind in ("location", "flavor"):
            bounds: list[frozenset[str]] = [
                frozenset().union(*(sets[name] for name in names))
                for names in (
                    [a.name for a in attached if a.mandatory and types[a.name] == kind],
                    [a.name for a in attached if not a.mandatory and types[a.name] == kind],
                    [a.name for a in own if types[a.name] == kind],
                )
                if names
            ]
            allowed = bounds[0]
            for each in bounds[1:]:
                allowed = allowed & each or allowed


def forget() -> None:
    """Empties what is remembered, as it is after a start."""
    for module in (attaching, effective, locations):
        for each in vars(module).values():
            if hasattr(each, "cache_clear") and hasattr(each, "__wrapped__"):
                each.cache_clear()


def per_second(work: Callable[[], None]) -> float:
    # What lives for long is out of the collector's way; what a round makes is not.
    gc.collect()
    gc.freeze()
    started = time.process_time()
    work()
    return DEPLOYMENTS / (time.process_time() - started)


def measured() -> list[Row]:
    rows = []
    shared, apart = world(own=SHARED), world(own=DEPLOYMENTS)
    for what, given, fresh in (
        ("effective policies, teams", shared, False),
        ("effective policies, each its own", apart, False),
        ("effective policies, first sight", apart, True),
    ):
        sets = flat_sets(given)
        mine, theirs = [], []
        for number in range(ROUNDS + 1):
            if fresh:
                forget()
            figures = (
                per_second(lambda g=given: ours(g)),
                per_second(lambda g=given, s=sets: plain(g, s)),
            )
            if number or fresh:
                mine.append(figures[0])
                theirs.append(figures[1])
        rows.append(
            Row(
                what,
                statistics.median(mine),
                "1/s",
                "plain set arithmetic",
                statistics.median(theirs),
            )
        )
    return rows


def main() -> int:
    rows = measured()
    publish(
        "policy-decide",
        rows,
        [
            f"{DEPLOYMENTS:,} deployments, 3 environment and 2 own policies each; aim {AIM:,}/s; "
            f"medians of {ROUNDS} rounds, processor time of one core",
            "ours explains every policy besides; the baseline only computes the sets",
        ],
    )
    missed = [row.what for row in rows[:2] if row.value < AIM]
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
