"""The situations that docs/autoscaling.md shows, and that the tests judge."""

from __future__ import annotations

from dataclasses import dataclass

from tests.support.autoscaling import Gateway, Simulation

from beamlit_operator.autoscaling.kpa import ScalingConfig

CONFIG = ScalingConfig(target=10.0, max_replicas=100)
"""A replica is given 7 of 10 requests in progress."""


@dataclass(frozen=True)
class Scenario:
    """A simulation, and a sentence for the plot."""

    title: str
    simulation: Simulation


def steady(second: int) -> float:
    """35 requests in progress."""
    return 35.0


def ramp(second: int) -> float:
    """From nothing to 140 in four minutes, and two more at 140."""
    return min(second * 140 / 240, 140.0)


def burst(second: int) -> float:
    """Nothing, then 200 for half a minute, then 14."""
    return 0.0 if second < 30 else 200.0 if second < 60 else 14.0


def sawtooth(second: int) -> float:
    """Up to 70 in 40 seconds, and again."""
    return (second % 40) * 70 / 40


def idle(second: int) -> float:
    """35, and nothing after a minute."""
    return 35.0 if second < 60 else 0.0


def queue(second: int) -> float:
    """5, and 100 from half a minute on."""
    return 5.0 if second < 30 else 100.0


def rate(second: int) -> float:
    """Requests per second: 30, a minute of 120, 30 again."""
    return 120.0 if 60 <= second < 120 else 30.0


SCENARIOS = {
    "steady": Scenario("Steady load on a sleeping deployment", Simulation(steady, 180)),
    "ramp": Scenario("A ramp", Simulation(ramp, 360)),
    "burst": Scenario("A burst on a sleeping deployment", Simulation(burst, 300)),
    "sawtooth": Scenario("A sawtooth", Simulation(sawtooth, 360)),
    "idle": Scenario("Load that ends", Simulation(idle, 300, replicas=5)),
    "gateway-lost": Scenario(
        "One of two gateways dies at 120 s; its callers go to the other",
        Simulation(steady, 300, gateways=(Gateway(), Gateway(gone=(120, 300))), replicas=5),
    ),
    "metrics-late": Scenario(
        "A burst, with figures that are 10 s old",
        Simulation(burst, 300, gateways=(Gateway(late=10),)),
    ),
    "blind": Scenario(
        "No gateway reports from 60 s to 240 s",
        Simulation(idle, 420, gateways=(Gateway(silent=(60, 240)),), replicas=5),
    ),
    "two-gateways": Scenario(
        "The burst, through two gateways",
        Simulation(burst, 300, gateways=(Gateway(), Gateway(late=2))),
    ),
    "limited": Scenario(
        "100 requests in progress on one replica that takes 10 at a time",
        Simulation(
            queue,
            300,
            scaling=ScalingConfig(target=10.0, max_concurrency=10, max_replicas=100),
            max_concurrency=10,
            replicas=1,
        ),
    ),
    "rps": Scenario(
        "Requests per second (`metric: rps`, `target: 10`)",
        Simulation(rate, 300, scaling=ScalingConfig(metric="rps", target=10.0, max_replicas=100)),
    ),
}
