"""What a review reads: the operator's memory, never the API server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from beamlit_operator.api import Environment, Model, ModelDeployment, Policy
from beamlit_operator.controllers.indexes import Indexes
from beamlit_operator.controllers.objects import Held
from beamlit_operator.kube import Json, ObjectKey
from beamlit_operator.workloads.native import Settings


@dataclass(frozen=True, slots=True)
class Picture:
    """The cluster as the operator holds it. Objects in it are shared: never modify one."""

    indexes: Indexes
    settings: Settings
    """What workloads are made with."""
    pods_of: Callable[[ObjectKey], Iterable[Json]] = lambda _: ()
    """The pods of a ModelDeployment."""
    node_labels: Callable[[str], Mapping[str, str] | None] = lambda _: None
    """The labels of a node by its name; None when it is not known."""
    node_kinds: Callable[[], Iterable[Mapping[str, str]]] = tuple
    """Every distinct set of node labels."""
    prometheus: bool = True
    """Whether the operator knows a Prometheus to ask."""
    namespaces: tuple[str, ...] = ()
    """The workspaces that are held; empty is all."""

    def holds(self, namespace: str) -> bool:
        """Whether anything is known of a workspace."""
        return not self.namespaces or namespace in self.namespaces

    def model(self, namespace: str, name: str) -> Model | None:
        """A Model that is there."""
        found = self.indexes.models.get(ObjectKey(namespace, name))
        return found.parsed if found is not None else None

    def environment(self, namespace: str, name: str) -> Environment | None:
        """An Environment that is there."""
        found = self.indexes.environments.get(ObjectKey(namespace, name))
        return found.parsed if found is not None else None

    def policies(self, namespace: str) -> Policies:
        """The Policies of a workspace."""
        return Policies(self.indexes, namespace)

    def deployments_of(self, namespace: str, model: str) -> list[Held[ModelDeployment]]:
        """The deployments of a Model that stay, by name."""
        return _staying(self.indexes.deployments_of(ObjectKey(namespace, model)))

    def deployments_in(self, namespace: str, environment: str) -> list[Held[ModelDeployment]]:
        """The deployments in an Environment that stay, by name."""
        return _staying(self.indexes.deployments_in(ObjectKey(namespace, environment)))

    def environments_with(self, namespace: str, policy: str) -> list[Held[Environment]]:
        """The Environments that attach a Policy and stay, by name."""
        found = self.indexes.environments_with(ObjectKey(namespace, policy))
        return [each for each in found if not each.deleting]

    def deployments_with(self, namespace: str, policy: str) -> list[Held[ModelDeployment]]:
        """The deployments that attach a Policy themselves and stay, by name."""
        return _staying(self.indexes.deployments_with(ObjectKey(namespace, policy)))


class Policies(Mapping[str, Policy]):
    """The Policies of one workspace by name, with one of them as it will be (None: gone)."""

    def __init__(
        self,
        indexes: Indexes,
        namespace: str,
        *,
        changed: Mapping[str, Policy | None] | None = None,
    ) -> None:
        self._indexes = indexes
        self._namespace = namespace
        self._changed = changed or {}

    def with_change(self, name: str, policy: Policy | None) -> Policies:
        """The same, but for one of them."""
        return Policies(self._indexes, self._namespace, changed={**self._changed, name: policy})

    def __getitem__(self, name: str) -> Policy:
        if name in self._changed:
            found = self._changed[name]
        else:
            held = self._indexes.policies.get(ObjectKey(self._namespace, name))
            found = held.parsed if held is not None else None
        if found is None:
            raise KeyError(name)
        return found

    def __iter__(self) -> Iterator[str]:
        names = {key.name for key in self._indexes.policies if key.namespace == self._namespace}
        return (name for name in sorted(names | set(self._changed)) if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _staying(found: Sequence[Held[ModelDeployment]]) -> list[Held[ModelDeployment]]:
    return [each for each in found if not each.deleting and each.parsed is not None]
