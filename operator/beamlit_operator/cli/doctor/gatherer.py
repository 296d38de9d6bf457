"""Reads what the checks look at. What may not be read, or fails, is remembered as such."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import aiohttp

from beamlit_operator import __version__
from beamlit_operator.api import labels
from beamlit_operator.api.definitions import NAMES
from beamlit_operator.cli import catalogues
from beamlit_operator.cli.doctor.components import is_ours
from beamlit_operator.cli.doctor.expected import Expected, expected
from beamlit_operator.cli.doctor.picture import Answer, Picture, Read, Review, Right, UnreadError
from beamlit_operator.controllers.admission.configuration import CONFIGURATIONS, NAME, WEBHOOK
from beamlit_operator.controllers.admission.keeper import SECRET
from beamlit_operator.kube import (
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    DEPLOYMENTS,
    ENVIRONMENTS,
    LEASES,
    MODEL_DEPLOYMENTS,
    MODELS,
    NODES,
    PODS,
    POLICIES,
    SECRETS,
    ApiError,
    HttpClient,
    Json,
    Resource,
)

T = TypeVar("T")

GATEWAY = "beamlit-gateway"
SYSTEM = "beamlit-system"

TOGETHER = 16
"""Questions under way at the same time."""

PATIENCE = 10.0
"""Seconds that the gateway may take."""

NOBODY = "beamlit-doctor"
"""A name that no workspace and no model has."""

_GUARDS = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "validatingadmissionpolicies",
    "ValidatingAdmissionPolicy",
    namespaced=False,
)
_BINDINGS = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "validatingadmissionpolicybindings",
    "ValidatingAdmissionPolicyBinding",
    namespaced=False,
)
_REVIEWS = Resource(
    "authorization.k8s.io",
    "v1",
    "subjectaccessreviews",
    "SubjectAccessReview",
    namespaced=False,
)


class Gatherer:
    """Reads one cluster once."""

    def __init__(
        self,
        client: HttpClient,
        *,
        workspace: str | None,
        system: str | None = None,
        gateway: str | None = None,
    ) -> None:
        """``workspace``: only this one, None for all; ``system``: where operator and gateway are;
        ``gateway``: where callers reach it, if that is known better than the cluster says."""
        self._client = client
        self._workspace = workspace
        self._system = system
        self._gateway = gateway
        self._places = asyncio.Semaphore(TOGETHER)

    async def picture(self) -> Picture:
        """Everything, as far as it may be read."""
        version = await self._try("the version", self._version)
        webhooks = await self._one(CONFIGURATIONS, NAME)
        system = self._system or _system(webhooks) or SYSTEM
        embedded = "+beamlit" in str((version.value or {}).get("gitVersion", ""))
        (
            models,
            deployments,
            environments,
            policies,
            nodes,
            guards,
            bindings,
            workloads,
            pods,
            lease,
            catalogue,
            runtimes,
        ) = await asyncio.gather(
            *(
                self._all(kind, self._workspace)
                for kind in (MODELS, MODEL_DEPLOYMENTS, ENVIRONMENTS, POLICIES)
            ),
            self._all(NODES),
            self._one(_GUARDS, "beamlit-placement"),
            self._one(_BINDINGS, "beamlit-placement"),
            self._all(DEPLOYMENTS, system),
            self._all(PODS, system),
            self._one(LEASES, labels.OPERATOR_NAME, system),
            self._one(CONFIG_MAPS, catalogues.name(), system),
            self._try("the ConfigMaps of runtimes", lambda: self._runtimes(system)),
        )
        definitions = {name: await self._one(CUSTOM_RESOURCE_DEFINITIONS, name) for name in NAMES}
        review, certificate, rights, gateway = await asyncio.gather(
            self._try("the webhook", lambda: self._review(models, deployments, webhooks)),
            self._try("the webhook's Secret", lambda: self._certificate(system)),
            self._try("the components' rights", lambda: self._rights(system)),
            self._try("the gateway", lambda: self._ask_gateway(deployments, system, embedded)),
        )
        return Picture(
            now=datetime.now(UTC),
            system=system,
            cli_version=__version__,
            everywhere=self._workspace is None,
            ahead=self._client.clock_difference,
            version=version,
            definitions=definitions,
            webhooks=webhooks,
            review=review,
            certificate=certificate,
            guards=guards,
            guard_bindings=bindings,
            rights=rights,
            workloads=_ours(workloads),
            pods=_ours(pods),
            lease=lease,
            gateway=gateway,
            nodes=nodes,
            catalogue=catalogue,
            runtimes=runtimes,
            models=models,
            deployments=deployments,
            environments=environments,
            policies=policies,
        )

    async def _try(self, what: str, read: Callable[[], Awaitable[T]]) -> Read[T]:
        async with self._places:
            try:
                return Read(await read())
            except ApiError as error:
                if error.status == 403:
                    return Read(why_not=f"you may not read it: {error.message}")
                return Read(why_not=f"{what} could not be read: {error.message or error}")
            except UnreadError as error:
                return Read(why_not=str(error))

    async def _all(self, kind: Resource, namespace: str | None = None) -> Read[list[Json]]:
        async def read() -> list[Json]:
            return (await self._client.list(kind, namespace)).items

        return await self._try(kind.plural, read)

    async def _one(
        self, kind: Resource, name: str, namespace: str | None = None
    ) -> Read[list[Json]]:
        async def read() -> list[Json]:
            try:
                return [await self._client.get(kind, name, namespace)]
            except ApiError as error:
                if error.not_found:
                    return []
                raise

        return await self._try(f"{kind.kind} {name}", read)

    async def _runtimes(self, system: str) -> list[Json]:
        selector = f"{labels.RUNTIMES}=true"
        return (await self._client.list(CONFIG_MAPS, system, label_selector=selector)).items

    async def _version(self) -> Json:
        response = await self._client.request("GET", "/version")
        return dict(json.loads(await response.read()))

    async def _certificate(self, system: str) -> bytes:
        secret = await self._client.get(SECRETS, SECRET, system)
        # Only what everybody is shown anyway: the key beside it is not looked at.
        return base64.b64decode((secret.get("data") or {}).get("tls.crt", ""))

    async def _review(
        self,
        models: Read[list[Json]],
        deployments: Read[list[Json]],
        webhooks: Read[list[Json]],
    ) -> Review:
        """Asks for something that the webhook refuses, without effect."""
        if not webhooks.known():
            raise UnreadError("there is no webhook")
        where = self._workspace or next(
            (
                str(each["metadata"].get("namespace"))
                for each in (*(deployments.value or ()), *(models.value or ()))
            ),
            "default",
        )
        body = {
            "apiVersion": labels.API_VERSION,
            "kind": "ModelDeployment",
            "metadata": {"name": NOBODY, "namespace": where},
            "spec": {
                "model": NOBODY,
                # Refused by the webhook, and by nothing before it.
                "podTemplate": {"metadata": {"finalizers": [f"{labels.GROUP}/doctor"]}},
            },
        }
        try:
            response = await self._client.request(
                "POST", MODEL_DEPLOYMENTS.path(where), query={"dryRun": "All"}, body=body
            )
            await response.read()
        except ApiError as error:
            if f'admission webhook "{WEBHOOK}" denied' in error.message:
                return Review(refused_by_webhook=True)
            if "failed calling webhook" in error.message and WEBHOOK in error.message:
                return Review(error=error.message)
            raise
        return Review(passed=True)

    async def _rights(self, system: str) -> list[Right]:
        async def ask(each: Expected) -> Right:
            attributes = {
                "verb": each.verb,
                "group": each.group,
                "resource": each.resource,
                "subresource": each.subresource,
                "name": each.name,
                "namespace": each.namespace,
            }
            body = {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SubjectAccessReview",
                "spec": {
                    "user": f"system:serviceaccount:{system}:beamlit-{each.component}",
                    "groups": ["system:serviceaccounts", f"system:serviceaccounts:{system}"],
                    "resourceAttributes": {k: v for k, v in attributes.items() if v},
                },
            }
            answer = await self._client.create(_REVIEWS, body)
            allowed = bool((answer.get("status") or {}).get("allowed"))
            return Right(each.component, each.verb, each.shown, each.namespace, allowed)

        first, *rest = expected(system)
        # One alone, so that who may not ask is told once.
        answers = [await ask(first)]
        for start in range(0, len(rest), TOGETHER):
            answers += await asyncio.gather(*map(ask, rest[start : start + TOGETHER]))
        return answers

    async def _ask_gateway(
        self, deployments: Read[list[Json]], system: str, embedded: bool
    ) -> Answer:
        path = f"/{NOBODY}/models/{NOBODY}"
        if self._gateway:
            return await _asked(self._gateway.rstrip("/"), path)
        told = next(
            (
                str(url).partition("://")[2].partition("/")[0]
                for each in deployments.value or ()
                if (url := (each.get("status") or {}).get("url"))
            ),
            "",
        )
        inside = told.partition(":")[0].endswith((".svc", ".svc.cluster.local"))
        if told and not inside:
            return await _asked(f"http://{told}", path)
        if embedded:
            raise UnreadError("no deployment says where it is: name it with --gateway URL")
        # Not reached from here by its name; the API server can reach it.
        proxy = f"/api/v1/namespaces/{system}/services/http:{GATEWAY}:80/proxy"
        try:
            response = await self._client.request("GET", proxy + path)
            return Answer(f"Service {GATEWAY}", response.status, False)
        except ApiError as error:
            if error.details.get("kind") == "services" and error.not_found:
                raise UnreadError(f"there is no Service {GATEWAY} in {system}") from error
            try:
                ours = _is_ours(json.loads(error.message))
            except ValueError:
                raise error from None
            return Answer(f"Service {GATEWAY}", error.status, ours)


async def _asked(base: str, path: str) -> Answer:
    timeout = aiohttp.ClientTimeout(total=PATIENCE)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(base + path, allow_redirects=False) as response,
        ):
            text = await response.text(errors="replace")
            status = response.status
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        why = str(error) or type(error).__name__
        raise UnreadError(f"{base} cannot be reached from here: {why}") from error
    try:
        return Answer(base, status, _is_ours(json.loads(text)))
    except ValueError:
        return Answer(base, status, False)


def _is_ours(body: Any) -> bool:
    error = body.get("error") if isinstance(body, dict) else None
    return isinstance(error, dict) and "reason" in error and "message" in error


def _system(webhooks: Read[list[Json]]) -> str:
    """The namespace that the webhook is called in."""
    for each in webhooks.value or ():
        for hook in each.get("webhooks") or ():
            service = (hook.get("clientConfig") or {}).get("service") or {}
            if service.get("namespace"):
                return str(service["namespace"])
    return ""


def _ours(read: Read[list[Json]]) -> Read[list[Json]]:
    if read.value is None:
        return read
    return Read([each for each in read.value if is_ours(each)])
