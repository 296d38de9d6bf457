"""The roles a cluster starts with, and roles that are made of others by label."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Final

import yaml

from beamlit_operator.devcluster.apiserver.api import Api
from beamlit_operator.devcluster.apiserver.preparing import Options
from beamlit_operator.devcluster.apiserver.rbac import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    GROUP,
)
from beamlit_operator.devcluster.apiserver.selectors import matches_selector
from beamlit_operator.devcluster.apiserver.store import Entry, Event, Key
from beamlit_operator.devcluster.apiserver.users import component
from beamlit_operator.kube import ApiError, Json

log = logging.getLogger(__name__)

_FIRST: Final = Path(__file__).with_name("rbac_roles.yaml")
_LABELS: Final = {"kubernetes.io/bootstrapping": "rbac-defaults"}
_ANNOTATIONS: Final = {"rbac.authorization.kubernetes.io/autoupdate": "true"}
_OPTIONS: Final = Options(
    manager="clusterrole-aggregation-controller",
    user=component("clusterrole-aggregation-controller"),
)


async def write_first_roles(api: Api) -> None:
    """Creates those of the first roles and bindings that are not there."""
    document = yaml.safe_load(_FIRST.read_text())
    wanted: list[tuple[str, Json]] = []
    for role in document["roles"]:
        labels = {**_LABELS, **role.get("labels", {})}
        metadata = {"name": role["name"], "labels": labels, "annotations": dict(_ANNOTATIONS)}
        body: Json = {"metadata": metadata, "rules": role.get("rules", [])}
        if "aggregationRule" in role:
            body["aggregationRule"] = role["aggregationRule"]
        wanted.append((CLUSTER_ROLES, body))
    for name, groups in document["bindings"].items():
        metadata = {"name": name, "labels": dict(_LABELS), "annotations": dict(_ANNOTATIONS)}
        subjects = [{"kind": "Group", "apiGroup": GROUP, "name": group} for group in groups]
        reference = {"kind": "ClusterRole", "apiGroup": GROUP, "name": name}
        body = {"metadata": metadata, "subjects": subjects, "roleRef": reference}
        wanted.append((CLUSTER_ROLE_BINDINGS, body))
    options = Options(manager="kube-apiserver")
    for resource, body in wanted:
        if Key("", body["metadata"]["name"]) not in api.store.collection(resource).objects:
            served = api.registry.find(GROUP, "v1", resource.partition(".")[0])
            await api.create(served, "", body, options)


class Aggregation:
    """Keeps the rules of ClusterRoles with an ``aggregationRule`` what their selectors say."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._roles = api.store.collection(CLUSTER_ROLES)
        self._changed = asyncio.Event()

    def load(self) -> None:
        """Looks at everything once."""
        self._changed.set()

    def observe(self, resource: str, event: Event) -> None:
        """Called after every commit."""
        if resource == CLUSTER_ROLES:
            self._changed.set()

    async def run(self) -> None:
        """Works until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self.settle()
            except Exception:
                # One role must not end the aggregation of all.
                log.exception("aggregating roles failed")

    async def settle(self) -> None:
        """Brings all of them up to date; those made of made ones take another round."""
        while await self._round():
            pass

    async def _round(self) -> bool:
        """Whether something changed."""
        changed = False
        for entry in list(self._roles.objects.values()):
            rule = entry.obj.get("aggregationRule")
            if rule is None:
                continue
            rules = self._union(entry, rule)
            if rules != (entry.obj.get("rules") or []):
                served = self._api.registry.find(GROUP, "v1", "clusterroles")
                body = {**entry.copy(f"{GROUP}/v1"), "rules": rules}
                try:
                    await self._api.update(served, entry.key, body, _OPTIONS)
                    changed = True
                except ApiError as error:
                    # Changed meanwhile, so there is another round.
                    log.debug("clusterrole %s: %s", entry.key.name, error)
        return changed

    def _union(self, entry: Entry, rule: Json) -> list[Json]:
        found: list[Json] = []
        others = sorted(self._roles.objects.values(), key=lambda other: other.key.name)
        for selector in rule.get("clusterRoleSelectors") or ():
            for other in others:
                labels = other.obj["metadata"].get("labels") or {}
                if other.key != entry.key and matches_selector(selector or {}, labels):
                    found += [r for r in other.obj.get("rules") or () if r not in found]
        return found
