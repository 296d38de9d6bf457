"""Admission webhooks: who must be asked about a write, and asking them.

Mutating webhooks are asked one after the other in order of name, validating ones all at once. A
webhook is reached by URL; one behind a Service is reached at the addresses of the Service's ready
endpoints, as there is no cluster network to route through.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import uuid
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import aiohttp

from beamlit_operator.devcluster.apiserver.admission_matching import (
    admission_request,
    rule_matches,
    selected,
)
from beamlit_operator.devcluster.apiserver.admission_review import Review
from beamlit_operator.devcluster.apiserver.cel import RuleError, compiled, evaluate_condition
from beamlit_operator.devcluster.apiserver.patches import JSON_PATCH, patched
from beamlit_operator.devcluster.apiserver.served import Registry
from beamlit_operator.devcluster.apiserver.store import Event, Store, duplicate
from beamlit_operator.kube import ApiError, Json

_GROUP: Final = "admissionregistration.k8s.io"
MUTATING: Final = f"mutatingwebhookconfigurations.{_GROUP}"
VALIDATING: Final = f"validatingwebhookconfigurations.{_GROUP}"

LARGEST_ANSWER: Final = 3 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Hook:
    """One webhook of one configuration."""

    configuration: str
    spec: Json

    @property
    def name(self) -> str:
        return str(self.spec.get("name", ""))


class Webhooks:
    """The :class:`~beamlit_operator.devcluster.apiserver.api.Admission` of the API server."""

    def __init__(self, store: Store, registry: Registry) -> None:
        self._store = store
        self._registry = registry
        self._mutating: list[Hook] = []
        self._validating: list[Hook] = []
        self._session: aiohttp.ClientSession | None = None

    def load(self) -> None:
        """Reads the configurations in the store."""
        self._mutating = self._hooks(MUTATING)
        self._validating = self._hooks(VALIDATING)

    def _hooks(self, resource: str) -> list[Hook]:
        entries = sorted(self._store.collection(resource).objects.values(), key=lambda e: e.key)
        return [
            Hook(entry.key.name, spec)
            for entry in entries
            for spec in entry.obj.get("webhooks") or ()
        ]

    def observe(self, resource: str, _: Event) -> None:
        """Called after every commit."""
        if resource in (MUTATING, VALIDATING):
            self.load()

    async def close(self) -> None:
        """Closes connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def concerns(self, review: Review) -> bool:
        """Whether any webhook has to be asked."""
        if not self._mutating and not self._validating:
            return False
        if review.served.group == _GROUP:
            # As in Kubernetes: a broken webhook must not keep itself from being removed.
            return False
        return any(self._applies(hook, review) for hook in (*self._mutating, *self._validating))

    async def mutate(self, review: Review) -> Json:
        """Asks the mutating webhooks in turn."""
        assert review.new is not None
        item = duplicate(review.new)
        for hook in self._mutating:
            current = Review(
                review.verb,
                review.served,
                review.key,
                item,
                review.old,
                review.subresource,
                review.options,
            )
            if not self._applies(hook, current):
                continue
            response = await self._ask(hook, current)
            if response is None:
                continue
            if response.get("patch"):
                try:
                    patch = json.loads(base64.b64decode(response["patch"], validate=True))
                except ValueError as error:
                    raise _internal(hook, f"its patch is not base64 JSON: {error}") from error
                item = patched(item, patch, JSON_PATCH, review.served)
        return duplicate(item)  # type: ignore[no-any-return]

    async def validate(self, review: Review) -> None:
        """Asks all validating webhooks; for DELETE the mutating ones too, as they may refuse."""
        hooks = [*self._validating, *(self._mutating if review.verb == "DELETE" else ())]
        hooks = [hook for hook in hooks if self._applies(hook, review)]
        answers = await asyncio.gather(
            *(self._ask(hook, review) for hook in hooks), return_exceptions=True
        )
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer

    def _applies(self, hook: Hook, review: Review) -> bool:
        spec = hook.spec
        return (
            any(rule_matches(rule, review) for rule in spec.get("rules") or ())
            and selected(spec, review, self._store)
            and all(
                self._condition(hook, condition, review)
                for condition in spec.get("matchConditions") or ()
            )
        )

    def _condition(self, hook: Hook, condition: Json, review: Review) -> bool:
        variables = {
            "object": review.new,
            "oldObject": review.old,
            "request": admission_request(review, "")["request"],
        }
        try:
            return evaluate_condition(compiled(condition["expression"]), variables)
        except (RuleError, ValueError, TypeError, KeyError, RuntimeError, ArithmeticError) as error:
            if hook.spec.get("failurePolicy") == "Ignore":
                return False
            raise _internal(hook, f"matchCondition {condition.get('name')}: {error}") from error

    async def _ask(self, hook: Hook, review: Review) -> Json | None:
        """The webhook's response; None when it failed and that is to be ignored.

        Raises:
            ApiError: it refused, or failed and must not.
        """
        if review.options.dry_run and hook.spec.get("sideEffects") not in ("None", "NoneOnDryRun"):
            raise ApiError(
                400,
                "BadRequest",
                f'admission webhook "{hook.name}" does not support dry run',
            )
        uid = str(uuid.uuid4())
        try:
            response = await self._call(hook, admission_request(review, uid), uid)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            if hook.spec.get("failurePolicy") == "Ignore":
                return None
            why = str(error) or type(error).__name__
            raise _internal(hook, f"failed to call webhook: {why}") from error
        for warning in response.get("warnings") or ():
            review.options.warnings.append(str(warning))
        if response.get("allowed") is True:
            return response
        status = response.get("status") or {}
        message = status.get("message") or status.get("reason") or "without explanation"
        code = int(status.get("code") or 403)
        raise ApiError(
            code if code >= 400 else 403,
            status.get("reason") or ("Forbidden" if code == 403 else "Unknown"),
            f'admission webhook "{hook.name}" denied the request: {message}',
            details=status.get("details"),
        )

    async def _call(self, hook: Hook, body: Json, uid: str) -> Json:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        config = hook.spec["clientConfig"]
        url, server_name = self._address(config)
        timeout = aiohttp.ClientTimeout(total=min(int(hook.spec.get("timeoutSeconds", 10)), 30))
        async with self._session.post(
            url,
            json=body,
            timeout=timeout,
            ssl=_context(config.get("caBundle", "")),
            server_hostname=server_name,
            allow_redirects=False,
        ) as reply:
            raw = await reply.content.read(LARGEST_ANSWER)
            if reply.status != 200:
                raise ValueError(f"{url} answered {reply.status}")
        answer: Any = json.loads(raw)
        response = answer.get("response") if isinstance(answer, dict) else None
        if not isinstance(response, dict) or response.get("uid") != uid:
            raise ValueError("the answer is not an AdmissionReview for the request that was sent")
        return response

    def _address(self, config: Json) -> tuple[str, str | None]:
        """URL to call, and the name its certificate must have when that differs."""
        if config.get("url"):
            return str(config["url"]), None
        service = config.get("service") or {}
        name, namespace = service.get("name", ""), service.get("namespace", "")
        slices = self._store.collection("endpointslices.discovery.k8s.io")
        for entry in slices.namespaces.get(namespace, {}).values():
            labels = entry.obj["metadata"].get("labels") or {}
            ports = entry.obj.get("ports") or ()
            if labels.get("kubernetes.io/service-name") != name or not ports:
                continue
            for endpoint in entry.obj.get("endpoints") or ():
                ready = (endpoint.get("conditions") or {}).get("ready") is not False
                if ready and endpoint.get("addresses"):
                    path = quote(service.get("path") or "/", safe="/?=&%")
                    host = endpoint["addresses"][0]
                    return f"https://{host}:{ports[0]['port']}{path}", f"{name}.{namespace}.svc"
        raise ValueError(f"the Service {namespace}/{name} has no ready endpoints")


def _context(bundle: str) -> ssl.SSLContext:
    if not bundle:
        return ssl.create_default_context()
    return ssl.create_default_context(cadata=base64.b64decode(bundle).decode())


def _internal(hook: Hook, why: str) -> ApiError:
    return ApiError(
        500,
        "InternalError",
        f'Internal error occurred: failed calling webhook "{hook.name}": {why}',
    )
