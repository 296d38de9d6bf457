"""The built-in resources that are served, with their schemas from Kubernetes' own definitions."""

from __future__ import annotations

from functools import partial
from typing import Final

from beamlit_operator.devcluster.apiserver.builtin_columns import COLUMNS
from beamlit_operator.devcluster.apiserver.schemas import builtin
from beamlit_operator.devcluster.apiserver.served import ScalePaths, Served
from beamlit_operator.devcluster.apiserver.validating import builtin_checker

_CORE = "io.k8s.api.core.v1."

# group/version, plural, kind, definition prefix, short names, traits:
# c cluster-scoped, s status, g generation, x scale, l logs, a in category "all"
_TABLE: Final = """
v1 namespaces Namespace core.v1 ns cs
v1 nodes Node core.v1 no cs
v1 pods Pod core.v1 po sgla
v1 services Service core.v1 svc sa
v1 secrets Secret core.v1 - -
v1 configmaps ConfigMap core.v1 cm -
v1 events Event core.v1 ev -
v1 serviceaccounts ServiceAccount core.v1 sa -
v1 endpoints Endpoints core.v1 ep -
v1 persistentvolumeclaims PersistentVolumeClaim core.v1 pvc s
v1 persistentvolumes PersistentVolume core.v1 pv cs
v1 limitranges LimitRange core.v1 limits -
v1 resourcequotas ResourceQuota core.v1 quota s
apps/v1 deployments Deployment apps.v1 deploy sgxa
apps/v1 replicasets ReplicaSet apps.v1 rs sgxa
apps/v1 controllerrevisions ControllerRevision apps.v1 - -
events.k8s.io/v1 events Event events.v1 ev -
discovery.k8s.io/v1 endpointslices EndpointSlice discovery.v1 - g
coordination.k8s.io/v1 leases Lease coordination.v1 - -
autoscaling/v2 horizontalpodautoscalers HorizontalPodAutoscaler autoscaling.v2 hpa sa
rbac.authorization.k8s.io/v1 roles Role rbac.v1 - -
rbac.authorization.k8s.io/v1 rolebindings RoleBinding rbac.v1 - -
rbac.authorization.k8s.io/v1 clusterroles ClusterRole rbac.v1 - c
rbac.authorization.k8s.io/v1 clusterrolebindings ClusterRoleBinding rbac.v1 - c
networking.k8s.io/v1 ingresses Ingress networking.v1 ing sg
networking.k8s.io/v1 ingressclasses IngressClass networking.v1 - cg
networking.k8s.io/v1 networkpolicies NetworkPolicy networking.v1 netpol g
policy/v1 poddisruptionbudgets PodDisruptionBudget policy.v1 pdb sg
scheduling.k8s.io/v1 priorityclasses PriorityClass scheduling.v1 pc cg
storage.k8s.io/v1 storageclasses StorageClass storage.v1 sc c
admissionregistration.k8s.io/v1 mutatingwebhookconfigurations MutatingWebhookConfiguration \
admissionregistration.v1 - cg
admissionregistration.k8s.io/v1 validatingwebhookconfigurations ValidatingWebhookConfiguration \
admissionregistration.v1 - cg
admissionregistration.k8s.io/v1 validatingadmissionpolicies ValidatingAdmissionPolicy \
admissionregistration.v1 - csg
admissionregistration.k8s.io/v1 validatingadmissionpolicybindings \
ValidatingAdmissionPolicyBinding admissionregistration.v1 - cg
apiextensions.k8s.io/v1 customresourcedefinitions CustomResourceDefinition \
apiextensions-apiserver.pkg.apis.apiextensions.v1 crd,crds csg
"""

_SCALE = ScalePaths(selector=("spec", "selector"))


def builtin_types() -> list[Served]:
    """All built-in resources."""
    found = []
    for line in _TABLE.replace("\\\n", "").strip().splitlines():
        group_version, plural, kind, package, shorts, traits = line.split()
        group, _, version = group_version.rpartition("/")
        root = "io.k8s." if package.startswith("apiextensions") else "io.k8s.api."
        name = f"{root}{package}.{kind}"
        found.append(
            Served(
                group=group,
                version=version,
                plural=plural,
                singular=kind.lower(),
                kind=kind,
                list_kind=kind + "List",
                namespaced="c" not in traits,
                short_names=() if shorts == "-" else tuple(shorts.split(",")),
                categories=("all",) if "a" in traits else (),
                status="s" in traits,
                generation="g" in traits,
                scale=_SCALE if "x" in traits else None,
                logs="l" in traits,
                columns=COLUMNS.get(plural, ()),
                collection="events" if kind == "Event" else "",
                definition=name,
                make_root=partial(builtin, name),
                make_checker=partial(builtin_checker, name),
            )
        )
    return found
