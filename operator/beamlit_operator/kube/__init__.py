"""The wire to the Kubernetes API: a small typed client and a list-watch reflector.

Everything that reads or writes a cluster goes through :class:`KubeClient`, so that tests, tools and
the embedded cluster can stand in for a real API server.
"""

from beamlit_operator.kube.client import (
    ApiError,
    Json,
    KubeClient,
    ListResult,
    WatchEvent,
)
from beamlit_operator.kube.http import HttpClient, connect
from beamlit_operator.kube.reflector import Change, ObjectKey, Reflector, synced
from beamlit_operator.kube.resources import (
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    ENVIRONMENTS,
    EVENTS,
    HORIZONTAL_POD_AUTOSCALERS,
    LEASES,
    MODEL_DEPLOYMENTS,
    MODELS,
    NAMESPACES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    POLICIES,
    REPLICA_SETS,
    SECRETS,
    SELF_SUBJECT_REVIEWS,
    SERVICE_ACCOUNTS,
    SERVICES,
    SUBJECT_ACCESS_REVIEWS,
    TOKEN_REVIEWS,
    Resource,
    resource_of,
)

__all__ = [
    "CONFIG_MAPS",
    "CUSTOM_RESOURCE_DEFINITIONS",
    "DEPLOYMENTS",
    "ENDPOINT_SLICES",
    "ENVIRONMENTS",
    "EVENTS",
    "HORIZONTAL_POD_AUTOSCALERS",
    "LEASES",
    "MODELS",
    "MODEL_DEPLOYMENTS",
    "NAMESPACES",
    "NODES",
    "PERSISTENT_VOLUME_CLAIMS",
    "PODS",
    "POLICIES",
    "REPLICA_SETS",
    "SECRETS",
    "SELF_SUBJECT_REVIEWS",
    "SERVICES",
    "SERVICE_ACCOUNTS",
    "SUBJECT_ACCESS_REVIEWS",
    "TOKEN_REVIEWS",
    "ApiError",
    "Change",
    "HttpClient",
    "Json",
    "KubeClient",
    "ListResult",
    "ObjectKey",
    "Reflector",
    "Resource",
    "WatchEvent",
    "connect",
    "resource_of",
    "synced",
]
