"""A model the user already runs, and where its requests overflow to under load."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from beamlit_operator.api.meta import Part
from beamlit_operator.api.model import TokenSecretRef
from beamlit_operator.api.schema import FreeForm, ObjectName, advice, rule, rules


class ObjectRef(Part):
    """An object in the same namespace that has a pod template."""

    api_version: str = Field(default="apps/v1", max_length=316)
    """Its `apiVersion`."""
    kind: str = Field(default="Deployment", max_length=63)
    """Its kind."""
    name: ObjectName
    """Its name."""
    namespace: ObjectName | None = None
    """Its namespace; the deployment's own when unset, and no other is accepted."""


class ServiceRef(Part):
    """A Service in the same namespace."""

    name: ObjectName
    """Its name."""
    namespace: ObjectName | None = None
    """Its namespace; the deployment's own when unset, and no other is accepted."""
    target_port: int | None = Field(default=None, ge=1, le=65535)
    """The port of the Service."""


class OAuthConfig(Part):
    """The OAuth 2.0 client credentials grant (RFC 6749, section 4.4)."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "has(self.clientSecret) != has(self.clientSecretRef)",
                "set exactly one of clientSecretRef (better) and clientSecret",
            )
        )
    )

    client_id: str = Field(min_length=1, max_length=512)
    """The client's id."""
    client_secret: str | None = Field(default=None, max_length=1024)
    """The client's secret in clear text, as Beamlit's manifests have it; prefer
    `clientSecretRef`."""
    client_secret_ref: TokenSecretRef | None = None
    """The client's secret, in a Secret."""
    token_url: str = Field(
        max_length=2048,
        pattern=r"^https?://\S+$",
        json_schema_extra=advice("write an address: https://HOST/PATH"),
    )
    """Where tokens are issued."""


class AuthConfig(Part):
    """How to authenticate at the remote backend."""

    type: Literal["oauth"] = "oauth"
    """The method."""
    oauth_config: OAuthConfig | None = None
    """For `type: oauth`."""


class RemoteBackend(Part):
    """Where requests overflow to."""

    host: str = Field(min_length=1, max_length=260)
    """Its host, with a port if it is not the scheme's."""
    scheme: Literal["http", "https"] = "http"
    """`http` or `https`."""
    path_prefix: str | None = Field(default=None, max_length=1024)
    """Put before the path of every request."""
    headers_to_add: dict[str, str] | None = Field(default=None, max_length=32)
    """Headers added to every request."""
    auth_config: AuthConfig | None = None
    """How to authenticate."""


class OffloadingBehavior(Part):
    """How much overflows."""

    percentage: int = Field(default=100, ge=0, le=100)
    """Percent of the requests that go to the remote backend while a metric is over its target."""


class OffloadingConfig(Part):
    """When and where requests overflow to."""

    remote_backend: RemoteBackend | None = None
    """Where to."""
    behavior: OffloadingBehavior | None = None
    """How much."""
    metrics: tuple[FreeForm, ...] = Field(default=(), max_length=16)
    """When: metrics with targets, as in a HorizontalPodAutoscaler."""
