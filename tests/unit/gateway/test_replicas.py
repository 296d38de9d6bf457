"""Replica-seconds."""

from __future__ import annotations

from beamlit_operator.gateway.names import DeploymentKey, RevisionKey, RevisionName, Workspace
from beamlit_operator.gateway.replicas import ReplicaSeconds

ONE = RevisionKey(Workspace("demo"), "iris", RevisionName("iris-1"))
TWO = RevisionKey(Workspace("demo"), "iris", RevisionName("iris-2"))


def test_ready_replicas_add_up_over_time() -> None:
    now = 100.0
    replicas = ReplicaSeconds(lambda: now)
    replicas.changed(ONE, 0)
    assert replicas.current() == {}
    replicas.changed(ONE, 2)
    now += 10
    assert replicas.current() == {ONE: 20.0}
    replicas.changed(ONE, 3)
    replicas.changed(TWO, 1)
    now += 1
    assert replicas.current() == {ONE: 23.0, TWO: 1.0}
    replicas.changed(ONE, 0)
    now += 100
    assert replicas.current() == {ONE: 23.0, TWO: 101.0}
    replicas.forget([ONE])
    assert replicas.current() == {TWO: 101.0}
    replicas.forget_deployment(DeploymentKey(Workspace("demo"), "iris"))
    assert replicas.current() == {}
