"""Pod Security Standards: what a pod may ask of its node, by the level its namespace has.

The labels ``pod-security.kubernetes.io/enforce`` and ``.../warn`` of a namespace name a level:

| level      | a pod must not                                                                      |
|------------|-------------------------------------------------------------------------------------|
| privileged | (everything is allowed)                                                             |
| baseline   | share namespaces, paths or ports of its node, be privileged, add capabilities,      |
|            | leave its seccomp, AppArmor, SELinux or /proc confinement, set unsafe sysctls       |
| restricted | the same, nor use other volumes than those of the cluster, gain privileges, run as  |
|            | root, keep capabilities or go without a seccomp profile                             |

``enforce`` refuses pods; ``warn`` warns about them and about what makes them. The controls and the
sentences are those of Kubernetes (docs: "Pod Security Standards"; k8s.io/pod-security-admission),
of its latest version: the labels ``...-version`` are not read. Pods that exist are left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from beamlit_operator.devcluster.apiserver.admission_review import Review
from beamlit_operator.devcluster.apiserver.errors import forbidden
from beamlit_operator.devcluster.apiserver.store import Key, Store
from beamlit_operator.kube import Json

PREFIX: Final = "pod-security.kubernetes.io/"
LEVELS: Final = ("baseline", "restricted")

_WORKLOADS: Final = frozenset(("deployments.apps", "replicasets.apps"))

_CAPABILITIES: Final = frozenset(
    [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ]
)
_VOLUMES: Final = frozenset(
    [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ]
)
_SELINUX: Final = frozenset(
    ("", "container_t", "container_init_t", "container_kvm_t", "container_engine_t")
)
_SYSCTLS: Final = frozenset(
    [
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.ping_group_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_wmem",
    ]
)
_CONFINED: Final = ("RuntimeDefault", "Localhost")

Check = Callable[[Json], Iterator[str]]


class PodSecurity:
    """The admission step for pods, and for the warnings about workloads."""

    def __init__(self, store: Store) -> None:
        self._namespaces = store.collection("namespaces")

    def concerns(self, review: Review) -> bool:
        """New pods and new templates, where the namespace names a level."""
        resource = review.served.resource
        if review.new is None or review.subresource:
            return False
        if resource == "pods":
            return review.verb == "CREATE" and bool(self._labels(review))
        return resource in _WORKLOADS and bool(self._labels(review))

    async def mutate(self, review: Review) -> Json:
        """Nothing is filled in."""
        assert review.new is not None
        return review.new

    async def validate(self, review: Review) -> None:
        """Refuses with 403, or warns."""
        assert review.new is not None
        labels = self._labels(review)
        is_pod = review.served.resource == "pods"
        spec = review.new["spec"] if is_pod else review.new["spec"]["template"]["spec"]
        if is_pod and (found := violations(spec, labels.get("enforce", ""))):
            name, level = review.key.name, labels["enforce"]
            raise forbidden("", "pods", name, f"violates {_told(level, found)}")
        if found := violations(spec, labels.get("warn", "")):
            review.options.warnings.append(f"would violate {_told(labels['warn'], found)}")

    def _labels(self, review: Review) -> dict[str, str]:
        entry = self._namespaces.objects.get(Key("", review.key.namespace))
        labels = (entry.obj["metadata"].get("labels") or {}) if entry is not None else {}
        return {
            mode: labels[PREFIX + mode]
            for mode in ("enforce", "warn")
            if labels.get(PREFIX + mode) in LEVELS
        }


def _told(level: str, found: list[str]) -> str:
    return f'PodSecurity "{level}:latest": {", ".join(found)}'


def violations(spec: Json, level: str) -> list[str]:
    """What of a pod's spec a level forbids, a sentence for each control."""
    return [sentence for check in _CHECKS.get(level, ()) for sentence in check(spec)]


def _containers(spec: Json) -> list[Json]:
    fields = ("initContainers", "containers", "ephemeralContainers")
    return [container for field in fields for container in spec.get(field) or ()]


def _security(item: Json) -> Json:
    found: Json = item.get("securityContext") or {}
    return found


def _named(items: Iterable[Json], what: str = "container") -> str:
    names = [f'"{item["name"]}"' for item in items]
    return f"{what}{'s' if len(names) > 1 else ''} {', '.join(names)}"


def _each(control: str, must: str, *, but: Callable[[Json], bool]) -> Check:
    """A control that every container has to meet by itself."""

    def check(spec: Json) -> Iterator[str]:
        if bad := [each for each in _containers(spec) if not but(_security(each))]:
            yield f"{control} ({_named(bad)} {must})"

    return check


def _host_namespaces(spec: Json) -> Iterator[str]:
    used = [f"{name}=true" for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    if used:
        yield f"host namespaces ({', '.join(used)})"


def _host_paths(spec: Json) -> Iterator[str]:
    if bad := [volume for volume in spec.get("volumes") or () if "hostPath" in volume]:
        yield f"hostPath volumes ({_named(bad, 'volume')})"


def _host_ports(spec: Json) -> Iterator[str]:
    bad = [
        (each, port["hostPort"])
        for each in _containers(spec)
        for port in each.get("ports") or ()
        if port.get("hostPort")
    ]
    if bad:
        ports = ", ".join(str(port) for _, port in bad)
        uses = f"{_named([bad[0][0]])} uses hostPort" if len(bad) == 1 else "hostPorts"
        yield f"hostPort ({uses} {ports})"


def _added(spec: Json, *, allowed: frozenset[str]) -> Iterator[tuple[Json, list[str]]]:
    for each in _containers(spec):
        added = (_security(each).get("capabilities") or {}).get("add") or ()
        if bad := [name for name in added if name not in allowed]:
            yield each, bad


def _capabilities(spec: Json) -> Iterator[str]:
    if bad := list(_added(spec, allowed=_CAPABILITIES)):
        names = ", ".join(f'"{name}"' for _, several in bad for name in several)
        holders = _named(each for each, _ in bad)
        yield (
            f"non-default capabilities ({holders} must not include {names} in"
            " securityContext.capabilities.add)"
        )


def _profiles(control: str, field: str, *, forbidden_type: str = "Unconfined") -> Check:
    """A confinement that neither the pod nor a container may leave."""

    def check(spec: Json) -> Iterator[str]:
        for holder, what in ((spec, "pod"), *((e, _named([e])) for e in _containers(spec))):
            if (_security(holder).get(field) or {}).get("type") == forbidden_type:
                kind = f'securityContext.{field}.type to "{forbidden_type}"'
                yield f"{control} ({what} must not set {kind})"

    return check


def _selinux(spec: Json) -> Iterator[str]:
    for holder, what in ((spec, "pod"), *((e, _named([e])) for e in _containers(spec))):
        options = _security(holder).get("seLinuxOptions") or {}
        if options.get("type", "") not in _SELINUX or options.get("user") or options.get("role"):
            yield f"seLinuxOptions ({what} set forbidden securityContext.seLinuxOptions)"


def _sysctls(spec: Json) -> Iterator[str]:
    names = [each["name"] for each in _security(spec).get("sysctls") or ()]
    if bad := [name for name in names if name not in _SYSCTLS]:
        yield f"forbidden sysctls ({', '.join(bad)})"


def _volumes(spec: Json) -> Iterator[str]:
    for volume in spec.get("volumes") or ():
        for kind in volume.keys() - {"name"} - _VOLUMES:
            yield (
                f'restricted volume types (volume "{volume["name"]}" uses restricted volume type'
                f' "{kind}")'
            )


def _keeps_capabilities(spec: Json) -> Iterator[str]:
    def drops(security: Json) -> bool:
        return "ALL" in ((security.get("capabilities") or {}).get("drop") or ())

    said = []
    if keeping := [each for each in _containers(spec) if not drops(_security(each))]:
        said.append(f'{_named(keeping)} must set securityContext.capabilities.drop=["ALL"]')
    if bad := list(_added(spec, allowed=frozenset(("NET_BIND_SERVICE",)))):
        names = ", ".join(f'"{name}"' for _, several in bad for name in several)
        holders = _named(each for each, _ in bad)
        said.append(f"{holders} must not include {names} in securityContext.capabilities.add")
    if said:
        yield f"unrestricted capabilities ({'; '.join(said)})"


def _non_root(spec: Json) -> Iterator[str]:
    for_all = _security(spec).get("runAsNonRoot")
    bad = [
        each
        for each in _containers(spec)
        if _security(each).get("runAsNonRoot", for_all) is not True
    ]
    if bad:
        yield (
            f"runAsNonRoot != true (pod or {_named(bad)} must set"
            " securityContext.runAsNonRoot=true)"
        )


def _not_user_0(spec: Json) -> Iterator[str]:
    if _security(spec).get("runAsUser") == 0:
        yield "runAsUser=0 (pod must not set runAsUser=0)"
    if bad := [each for each in _containers(spec) if _security(each).get("runAsUser") == 0]:
        yield f"runAsUser=0 ({_named(bad)} must not set runAsUser=0)"


def _seccomp(spec: Json) -> Iterator[str]:
    def kind(security: Json) -> Any:
        return (security.get("seccompProfile") or {}).get("type")

    for_all = kind(_security(spec))
    bad = [e for e in _containers(spec) if (kind(_security(e)) or for_all) not in _CONFINED]
    if bad:
        yield (
            f"seccompProfile (pod or {_named(bad)} must set"
            ' securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")'
        )


_BOTH: Final[tuple[Check, ...]] = (
    _host_namespaces,
    _host_ports,
    _each(
        "privileged",
        "must not set securityContext.privileged=true",
        but=lambda security: not security.get("privileged"),
    ),
    _profiles("forbidden AppArmor profile", "appArmorProfile"),
    _selinux,
    _each(
        "procMount",
        'must not set securityContext.procMount to "Unmasked"',
        but=lambda security: security.get("procMount", "Default") == "Default",
    ),
    _sysctls,
)

_CHECKS: Final[dict[str, tuple[Check, ...]]] = {
    "baseline": (
        *_BOTH,
        _host_paths,
        _capabilities,
        _profiles("seccompProfile", "seccompProfile"),
    ),
    # What restricted says about these is stricter and is said once.
    "restricted": (
        *_BOTH,
        _each(
            "allowPrivilegeEscalation != false",
            "must set securityContext.allowPrivilegeEscalation=false",
            but=lambda security: security.get("allowPrivilegeEscalation") is False,
        ),
        _keeps_capabilities,
        _volumes,
        _non_root,
        _not_user_0,
        _seccomp,
    ),
}
