"""The scheduler: chooses a node for every pod that has none, or says why there is none."""

from beamlit_operator.devcluster.scheduler.loop import Scheduler

__all__ = ["Scheduler"]
