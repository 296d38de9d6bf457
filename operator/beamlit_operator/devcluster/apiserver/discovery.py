"""Discovery: what is served, in the legacy documents and in the aggregated one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from beamlit_operator.devcluster.apiserver.schemas import KUBERNETES_VERSION
from beamlit_operator.devcluster.apiserver.served import ALL_VERBS, Registry, Served
from beamlit_operator.kube import Json

REVIEWS: Final[dict[tuple[str, str], dict[str, tuple[str, bool]]]] = {
    ("authentication.k8s.io", "v1"): {
        "tokenreviews": ("TokenReview", False),
        "selfsubjectreviews": ("SelfSubjectReview", False),
    },
    ("authorization.k8s.io", "v1"): {
        "subjectaccessreviews": ("SubjectAccessReview", False),
        "selfsubjectaccessreviews": ("SelfSubjectAccessReview", False),
        "selfsubjectrulesreviews": ("SelfSubjectRulesReview", False),
        "localsubjectaccessreviews": ("LocalSubjectAccessReview", True),
    },
}
"""Kinds that are asked, never stored: plural → (kind, namespaced)."""

_SUBRESOURCE_VERBS: Final = {
    "status": ("get", "patch", "update"),
    "scale": ("get", "patch", "update"),
    "log": ("get",),
}

_CREATED: Final[dict[str, dict[str, tuple[str, str, str]]]] = {
    "pods": {"binding": ("", "v1", "Binding"), "eviction": ("policy", "v1", "Eviction")},
    "serviceaccounts": {"token": ("authentication.k8s.io", "v1", "TokenRequest")},
}
"""Subresources that are only ever created: group, version and kind of what is sent."""


_ASKED: Final = ("create",)
_MEASURED: Final = ("get", "list")


def version() -> Json:
    """``/version``."""
    major, minor, _ = KUBERNETES_VERSION.split(".")
    return {
        "major": major,
        "minor": minor,
        "gitVersion": f"v{KUBERNETES_VERSION}+beamlit",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "",
        "platform": "linux/amd64",
    }


def core_versions() -> Json:
    """``/api``."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [],
    }


def group_list(registry: Registry) -> Json:
    """``/apis``."""
    return {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [
            group_document(name, versions) for name, versions in _groups(registry).items() if name
        ],
    }


def one_group(registry: Registry, name: str) -> Json | None:
    """``/apis/{name}``; None when there is no such group."""
    versions = _groups(registry).get(name) if name else None
    if versions is None:
        return None
    return {"kind": "APIGroup", "apiVersion": "v1", **group_document(name, versions)}


def group_document(name: str, versions: list[str]) -> Json:
    """An APIGroup without its type."""
    listed = [{"groupVersion": f"{name}/{v}", "version": v} for v in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def _groups(registry: Registry) -> dict[str, list[str]]:
    found: dict[str, dict[str, int]] = {"": {}}
    for served in registry:
        versions = found.setdefault(served.group, {})
        versions[served.version] = min(versions.get(served.version, 99), served.priority)
    for group, name in (*REVIEWS, *registry.measured):
        found.setdefault(group, {}).setdefault(name, 0)
    return {g: sorted(v, key=lambda name, v=v: v[name]) for g, v in found.items()}  # type: ignore[misc]


def resource_list(registry: Registry, group: str, version_name: str) -> Json | None:
    """``/api/v1`` or ``/apis/{group}/{version}``; None when nothing is served there."""
    resources: list[Json] = []
    for served in registry:
        if (served.group, served.version) == (group, version_name):
            resources += _legacy(served)
    for plural, kind, namespaced, verbs in _not_stored(registry, group, version_name):
        resources.append(
            {
                "name": plural,
                "singularName": kind.lower() if verbs == _ASKED else "",
                "namespaced": namespaced,
                "kind": kind,
                "verbs": list(verbs),
            }
        )
    if not resources:
        return None
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version_name}" if group else version_name,
        "resources": resources,
    }


def _not_stored(
    registry: Registry, group: str, version_name: str
) -> Iterator[tuple[str, str, bool, tuple[str, ...]]]:
    """(plural, kind, namespaced, verbs) of what is asked or measured."""
    for plural, (kind, namespaced) in REVIEWS.get((group, version_name), {}).items():
        yield plural, kind, namespaced, _ASKED
    for plural, (kind, namespaced) in registry.measured.get((group, version_name), {}).items():
        yield plural, kind, namespaced, _MEASURED


def _legacy(served: Served) -> list[Json]:
    main: Json = {
        "name": served.plural,
        "singularName": served.singular,
        "namespaced": served.namespaced,
        "kind": served.kind,
        "verbs": list(ALL_VERBS),
    }
    if served.short_names:
        main["shortNames"] = list(served.short_names)
    if served.categories:
        main["categories"] = list(served.categories)
    found = [main]
    for name in served.subresources:
        entry: Json = {
            "name": f"{served.plural}/{name}",
            "singularName": "",
            "namespaced": served.namespaced,
            "kind": "Scale" if name == "scale" else served.kind,
            "verbs": list(_SUBRESOURCE_VERBS[name]),
        }
        if name == "scale":
            entry["group"], entry["version"] = "autoscaling", "v1"
        found.append(entry)
    for name, (group, version_name, kind) in _CREATED.get(served.resource, {}).items():
        created: Json = {
            "name": f"{served.plural}/{name}",
            "singularName": "",
            "namespaced": served.namespaced,
            "kind": kind,
            "verbs": ["create"],
        }
        if group:
            created["group"], created["version"] = group, version_name
        found.append(created)
    return found


def aggregated(registry: Registry, *, core: bool) -> Json:
    """``apidiscovery.k8s.io/v2``: everything of the core group, or of all others."""
    items = []
    for group, versions in _groups(registry).items():
        if (group == "") is not core:
            continue
        item: Json = {
            "metadata": {"name": group} if group else {},
            "versions": [
                {
                    "version": name,
                    "freshness": "Current",
                    "resources": _aggregated_resources(registry, group, name),
                }
                for name in versions
            ],
        }
        items.append(item)
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    }


def _aggregated_resources(registry: Registry, group: str, version_name: str) -> list[Json]:
    found: list[Json] = []
    for served in registry:
        if (served.group, served.version) != (group, version_name):
            continue
        entry: Json = {
            "resource": served.plural,
            "responseKind": _kind(group, version_name, served.kind),
            "scope": "Namespaced" if served.namespaced else "Cluster",
            "singularResource": served.singular,
            "verbs": list(ALL_VERBS),
        }
        if served.short_names:
            entry["shortNames"] = list(served.short_names)
        if served.categories:
            entry["categories"] = list(served.categories)
        if served.subresources or served.resource in _CREATED:
            entry["subresources"] = [
                {
                    "subresource": name,
                    "responseKind": _kind("autoscaling", "v1", "Scale")
                    if name == "scale"
                    else _kind(group, version_name, served.kind),
                    "verbs": list(_SUBRESOURCE_VERBS[name]),
                }
                for name in served.subresources
            ] + [
                {"subresource": name, "responseKind": _kind(*what), "verbs": ["create"]}
                for name, what in _CREATED.get(served.resource, {}).items()
            ]
        found.append(entry)
    for plural, kind, namespaced, verbs in _not_stored(registry, group, version_name):
        found.append(
            {
                "resource": plural,
                "responseKind": _kind(group, version_name, kind),
                "scope": "Namespaced" if namespaced else "Cluster",
                "singularResource": kind.lower() if verbs == _ASKED else "",
                "verbs": list(verbs),
            }
        )
    return found


def _kind(group: str, version_name: str, kind: str) -> Json:
    return {"group": group, "version": version_name, "kind": kind}
