"""The controllers a workload needs: Deployment, ReplicaSet, EndpointSlice, ServiceAccount.

Each is a pure ``decide(snapshot) -> Plan`` and a thin loop that takes the snapshot from shared
reflectors and carries the plan out. All are level-triggered: they can be killed at any point and
continue from what the API holds.
"""

from beamlit_operator.devcluster.controllers.run import Controllers

__all__ = ["Controllers"]
