"""Where each kind of object lives in the Kubernetes API.

A static table instead of discovery: the set of kinds this project touches is fixed, and a table
needs no request before the first one.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Resource:
    """One collection of the API: its group, version, plural name, kind and scope."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """The ``apiVersion`` its objects carry, e.g. ``apps/v1`` or ``v1``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(
        self, namespace: str | None = None, name: str | None = None, subresource: str | None = None
    ) -> str:
        """The URL path of the collection, of one object or of one of its subresources.

        ``namespace=None`` on a namespaced resource means all namespaces (collections only).
        """
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        parts = [root]
        if self.namespaced and namespace is not None:
            parts.append(f"namespaces/{namespace}")
        parts.append(self.plural)
        if name is not None:
            parts.append(name)
        if subresource is not None:
            parts.append(subresource)
        return "/".join(parts)


NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
NODES = Resource("", "v1", "nodes", "Node", namespaced=False)
PODS = Resource("", "v1", "pods", "Pod")
SERVICES = Resource("", "v1", "services", "Service")
SECRETS = Resource("", "v1", "secrets", "Secret")
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
EVENTS = Resource("", "v1", "events", "Event")
PERSISTENT_VOLUME_CLAIMS = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")
REPLICA_SETS = Resource("apps", "v1", "replicasets", "ReplicaSet")
ENDPOINT_SLICES = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
HORIZONTAL_POD_AUTOSCALERS = Resource(
    "autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler"
)
CUSTOM_RESOURCE_DEFINITIONS = Resource(
    "apiextensions.k8s.io",
    "v1",
    "customresourcedefinitions",
    "CustomResourceDefinition",
    namespaced=False,
)
SELF_SUBJECT_REVIEWS = Resource(
    "authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview", namespaced=False
)
TOKEN_REVIEWS = Resource(
    "authentication.k8s.io", "v1", "tokenreviews", "TokenReview", namespaced=False
)
SUBJECT_ACCESS_REVIEWS = Resource(
    "authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", namespaced=False
)
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
MODELS = Resource("beamlit.com", "v1alpha1", "models", "Model")
MODEL_DEPLOYMENTS = Resource("beamlit.com", "v1alpha1", "modeldeployments", "ModelDeployment")
ENVIRONMENTS = Resource("beamlit.com", "v1alpha1", "environments", "Environment")
POLICIES = Resource("beamlit.com", "v1alpha1", "policies", "Policy")

_BY_KIND = {
    (r.api_version, r.kind): r
    for r in (
        NAMESPACES,
        NODES,
        PODS,
        SERVICES,
        SECRETS,
        CONFIG_MAPS,
        EVENTS,
        PERSISTENT_VOLUME_CLAIMS,
        DEPLOYMENTS,
        REPLICA_SETS,
        ENDPOINT_SLICES,
        LEASES,
        HORIZONTAL_POD_AUTOSCALERS,
        CUSTOM_RESOURCE_DEFINITIONS,
        MODELS,
        MODEL_DEPLOYMENTS,
        ENVIRONMENTS,
        POLICIES,
    )
}


def resource_of(api_version: str, kind: str) -> Resource:
    """The resource an object of this ``apiVersion`` and ``kind`` belongs to.

    Raises:
        KeyError: this project does not work with that kind.
    """
    return _BY_KIND[(api_version, kind)]
