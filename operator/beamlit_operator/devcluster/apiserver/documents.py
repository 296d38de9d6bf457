"""What is served besides resources: discovery, OpenAPI, the version, the keys of tokens."""

from __future__ import annotations

from aiohttp import web

from beamlit_operator.devcluster.apiserver import discovery, openapi
from beamlit_operator.devcluster.apiserver.access import Access
from beamlit_operator.devcluster.apiserver.errors import no_such_path
from beamlit_operator.devcluster.apiserver.requests import json_answer
from beamlit_operator.devcluster.apiserver.served import Registry
from beamlit_operator.kube import ApiError, Json


class Documents:
    """Answers a GET of a path that is no resource's."""

    def __init__(self, registry: Registry, access: Access) -> None:
        self._registry = registry
        self._access = access
        self._schemas = openapi.Documents(registry)

    def answer(self, request: web.Request, segments: list[str]) -> web.Response:
        """The document at ``segments``.

        Raises:
            ApiError: 404 or 406.
        """
        if not segments:
            return json_answer(openapi.root_paths(self._registry))
        accept = request.headers.get("Accept", "")
        registry = self._registry
        document: Json | None
        match segments:
            case ["version"]:
                document = discovery.version()
            case ["openid", "v1", "jwks"]:
                kind = "application/jwk-set+json"
                if accept and not any(name in accept for name in (kind, "*/*", "application/*")):
                    why = f"406: Not Acceptable\n\nAvailable representations: {kind}"
                    raise ApiError(406, "NotAcceptable", why)
                return json_answer(self._access.tokens.key_set(), media_type=kind)
            case [".well-known", "openid-configuration"]:
                document = self._access.tokens.discovery(str(request.url.origin()))
            case ["api" | "apis"] if "g=apidiscovery.k8s.io" in accept and "v=v2;" in accept + ";":
                found = discovery.aggregated(registry, core=segments[0] == "api")
                kind = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
                return json_answer(found, media_type=kind)
            case ["api"]:
                document = discovery.core_versions()
            case ["apis"]:
                document = discovery.group_list(registry)
            case ["api", version]:
                document = discovery.resource_list(registry, "", version)
            case ["apis", group]:
                document = discovery.one_group(registry, group)
            case ["apis", group, version]:
                document = discovery.resource_list(registry, group, version)
            case ["openapi", "v3"]:
                document = self._schemas.index()
            case ["openapi", "v3", *rest]:
                text = self._schemas.of("/".join(rest))
                if text is None:
                    raise no_such_path()
                return web.Response(body=text, content_type="application/json")
            case ["openapi", "v2"]:
                if accept and "json" not in accept and "*/*" not in accept:
                    if "protobuf" not in accept:
                        raise ApiError(406, "NotAcceptable", "only JSON and protobuf are served")
                    kind = openapi.V2_PROTOBUF
                    return web.Response(body=openapi.v2_protobuf(), headers={"Content-Type": kind})
                return web.Response(body=self._schemas.v2(), content_type="application/json")
            case _:
                document = None
        if document is None:
            raise no_such_path()
        return json_answer(document)
