"""The API over HTTP: finds out what a request wants, asks the verbs, and writes the answer."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import Any, Final

from aiohttp import web

from beamlit_operator.devcluster.apiserver import discovery, event_versions, reviews, scaling
from beamlit_operator.devcluster.apiserver.access import USER, Access, is_resource
from beamlit_operator.devcluster.apiserver.answers import (
    Form,
    form_of,
    list_body,
    object_body,
    wants_yaml,
    watch_lines,
)
from beamlit_operator.devcluster.apiserver.api import Api
from beamlit_operator.devcluster.apiserver.auditlog import WRITES, AuditLog
from beamlit_operator.devcluster.apiserver.bodies import decoded
from beamlit_operator.devcluster.apiserver.documents import Documents
from beamlit_operator.devcluster.apiserver.errors import (
    no_such_path,
    not_allowed,
    not_implemented,
)
from beamlit_operator.devcluster.apiserver.listing import page
from beamlit_operator.devcluster.apiserver.logs import LogProvider, stream_log
from beamlit_operator.devcluster.apiserver.metrics import GROUP_VERSION, MetricsApi
from beamlit_operator.devcluster.apiserver.paths import Target, as_query, segments_of, target_of
from beamlit_operator.devcluster.apiserver.removing import Deletion
from beamlit_operator.devcluster.apiserver.requests import (
    body_of,
    check_known,
    check_list_options,
    check_version,
    failure,
    in_yaml,
    json_answer,
    number_of,
    options_of,
    with_warnings,
)
from beamlit_operator.devcluster.apiserver.selectors import (
    Matcher,
    both,
    field_matcher,
    label_matcher,
)
from beamlit_operator.devcluster.apiserver.served import Served
from beamlit_operator.devcluster.apiserver.store import Entry, Key, encode
from beamlit_operator.devcluster.apiserver.watch import Watch
from beamlit_operator.kube import ApiError

log = logging.getLogger(__name__)

LARGEST_BODY: Final = 3 * 1024 * 1024
"""Bytes, as in Kubernetes."""

_UNSUPPORTED: Final = frozenset(
    ("exec", "attach", "portforward", "proxy", "ephemeralcontainers", "resize")
)

_SPECIAL: Final = frozenset(("pods", "namespaces", "serviceaccounts"))
"""Types with subresources that no other has."""


class Frontend:
    """The aiohttp handler of the API server."""

    def __init__(self, api: Api, access: Access, *, audit: AuditLog | None = None) -> None:
        self._api = api
        self._access = access
        self._audit = audit
        self._documents = Documents(api.registry, access)
        self.log_provider: LogProvider | None = None
        self.metrics: MetricsApi | None = None
        self._watches: set[Watch] = set()

    def end_watches(self) -> None:
        """Ends all open watches, so that a stop does not wait for them."""
        for watch in tuple(self._watches):
            watch.end()

    def application(self) -> web.Application:
        """The application to serve."""
        app = web.Application(client_max_size=LARGEST_BODY)
        app.router.add_route("*", "/{tail:.*}", self.handle)
        return app

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answers one request, in the representation it asks for."""
        received = datetime.now(UTC)
        answer = await self._answer_or_refuse(request)
        if self._audit is not None and request.method in WRITES and USER in request:
            self._audit.note(request, received, code=answer.status)
        if isinstance(answer, web.Response) and wants_yaml(request.headers.get("Accept", "")):
            return in_yaml(answer)
        return answer

    async def _answer_or_refuse(self, request: web.Request) -> web.StreamResponse:
        """Every failure becomes a Status."""
        try:
            return await self._answer(request)
        except ApiError as error:
            return failure(error)
        except web.HTTPRequestEntityTooLarge:
            return failure(
                ApiError(
                    413,
                    "RequestEntityTooLarge",
                    f"Request entity too large: limit is {LARGEST_BODY}",
                )
            )
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            log.exception("%s %s failed", request.method, request.rel_url.raw_path)
            return failure(
                ApiError(
                    500, "InternalError", "an internal error occurred; the server's log says why"
                )
            )

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        segments = segments_of(request.rel_url.raw_path)
        if segments[2:3] == ["watch"] or segments[3:4] == ["watch"]:
            request, segments = as_query(request, segments)
        if segments and segments[0] in ("healthz", "livez", "readyz"):
            return web.Response(text="ok")
        request[USER] = self._access.admit(request, segments)
        if is_resource(segments):
            return await self._resource(request, target_of(segments))
        if request.method not in ("GET", "HEAD"):
            raise not_allowed(f"{request.method} on {request.path}")
        return self._documents.answer(request, segments)

    async def _resource(self, request: web.Request, target: Target) -> web.StreamResponse:
        if (target.group, target.version) in discovery.REVIEWS:
            return await self._review(request, target)
        if self.metrics is not None and (target.group, target.version) == GROUP_VERSION:
            return await self.metrics.answer(request, target)
        served = self._api.registry.find(target.group, target.version, target.plural)
        if target.subresource in _UNSUPPORTED:
            raise not_implemented(f"the subresource {served.plural}/{target.subresource}")
        if target.subresource and served.resource in _SPECIAL:
            special = await self._special(request, served, target)
            if special is not None:
                return special
        self._api.subresource(served, target.subresource)
        if target.name and served.namespaced and not target.namespace:
            raise no_such_path(served.group)
        if target.namespace and not served.namespaced:
            raise no_such_path(served.group)
        method = request.method
        if not target.name:
            if method == "GET" or method == "HEAD":
                return await self._collection(request, served, target)
            if method == "POST":
                return await self._create(request, served, target)
            if method == "DELETE":
                return await self._delete_collection(request, served, target)
        elif method in ("GET", "HEAD"):
            return self._get(request, served, target)
        elif method == "PUT":
            return await self._put(request, served, target)
        elif method == "PATCH":
            return await self._patch(request, served, target)
        elif method == "DELETE" and not target.subresource:
            return await self._delete(request, served, target)
        raise not_allowed(f"{method} on {request.path}")

    # One method per verb.

    def _get(self, request: web.Request, served: Served, target: Target) -> web.Response:
        version = request.query.get("resourceVersion", "")
        check_version(version)
        check_known(int(version or 0), self._api.store.version)
        entry = self._api.get(served, Key(target.namespace, target.name))
        return self._object(request, served, entry, target.subresource, [], 200)

    async def _collection(
        self, request: web.Request, served: Served, target: Target
    ) -> web.StreamResponse:
        query = request.query
        matcher = self._matcher(request, served)
        namespace = target.namespace or None
        form = form_of(request.headers.get("Accept", ""), query)
        check_list_options(query, self._api.store.version)
        if query.get("watch") in ("true", "1"):
            return await self._watch(request, served, namespace, matcher, form)
        found = page(
            self._api.store,
            self._api.collection(served),
            namespace=namespace,
            matcher=matcher,
            limit=number_of(query.get("limit"), "limit"),
            token=query.get("continue", ""),
        )
        body = list_body(served, found, form)
        return web.Response(body=body, content_type="application/json")

    async def _watch(
        self,
        request: web.Request,
        served: Served,
        namespace: str | None,
        matcher: Matcher | None,
        form: Form,
    ) -> web.StreamResponse:
        query = request.query
        version = number_of(query.get("resourceVersion"), "resourceVersion")
        streamed_list = query.get("sendInitialEvents") == "true"
        watch = Watch(
            self._api.store,
            self._api.collection(served),
            namespace=namespace,
            matcher=matcher,
            version=None if streamed_list else version or None,
            timeout=number_of(query.get("timeoutSeconds"), "timeoutSeconds") or 1800,
            bookmarks=query.get("allowWatchBookmarks") in ("true", "1"),
            initial_bookmark=streamed_list,
        )
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        self._watches.add(watch)
        try:
            await response.prepare(request)
            first = True
            async for batch in watch.batches():
                await response.write(watch_lines(served, batch, form, headers=first))
                first = False
            await response.write_eof()
        except ConnectionError:
            log.debug("a watcher of %s went away", served.resource)
        finally:
            self._watches.discard(watch)
            watch.close()
        return response

    async def _create(self, request: web.Request, served: Served, target: Target) -> web.Response:
        options = options_of(request)
        body = await body_of(request, doubled=options.doubled)
        home, body = self._home(served, body)
        entry = await self._api.create(home, target.namespace, body, options)
        return self._object(request, served, entry, "", options.warnings, 201)

    async def _put(self, request: web.Request, served: Served, target: Target) -> web.Response:
        options = options_of(request)
        home, body = self._home(served, await body_of(request, doubled=options.doubled))
        entry = await self._api.update(
            home,
            Key(target.namespace, target.name),
            body,
            options,
            subresource=target.subresource,
        )
        return self._object(request, served, entry, target.subresource, options.warnings, 200)

    async def _patch(self, request: web.Request, served: Served, target: Target) -> web.Response:
        options = options_of(request)
        media_type = request.content_type
        body = decoded(await request.read(), media_type, doubled=options.doubled)
        home, body = self._home(served, body)
        entry, created = await self._api.patch(
            home,
            Key(target.namespace, target.name),
            body,
            media_type,
            options,
            subresource=target.subresource,
        )
        status = 201 if created else 200
        return self._object(request, served, entry, target.subresource, options.warnings, status)

    async def _delete(self, request: web.Request, served: Served, target: Target) -> web.Response:
        body = await body_of(request, empty={})
        deletion = Deletion.parse(body, request.query)
        options = options_of(request, body)
        entry, gone = await self._api.delete(
            served, Key(target.namespace, target.name), deletion, options
        )
        if not gone:
            return self._object(request, served, entry, "", options.warnings, 200)
        details = {
            "name": target.name,
            "group": served.group,
            "kind": served.plural,
            "uid": entry.obj["metadata"]["uid"],
        }
        answer = json_answer(
            {
                "kind": "Status",
                "apiVersion": "v1",
                "metadata": {},
                "status": "Success",
                "details": {key: value for key, value in details.items() if value},
            }
        )
        return with_warnings(answer, options.warnings)

    async def _delete_collection(
        self, request: web.Request, served: Served, target: Target
    ) -> web.Response:
        if served.namespaced and not target.namespace:
            raise not_allowed(f"deleting {served.plural} of all namespaces at once")
        body = await body_of(request, empty={})
        deletion = Deletion.parse(body, request.query)
        found = page(
            self._api.store,
            self._api.collection(served),
            namespace=target.namespace or None,
            matcher=self._matcher(request, served),
            limit=0,
            token="",
        )
        options = options_of(request, body)
        await self._api.delete_all(served, found.entries, deletion, options)
        listed = list_body(served, found, form_of("", {}))
        answer = web.Response(body=listed, content_type="application/json")
        return with_warnings(answer, options.warnings)

    async def _special(
        self, request: web.Request, served: Served, target: Target
    ) -> web.StreamResponse | None:
        """Subresources that no other type has; None when it is none of these."""
        key = Key(target.namespace, target.name)
        match served.plural, target.subresource, request.method:
            case "pods", "log", "GET":
                return await stream_log(request, self._api.get(served, key), self.log_provider)
            case "pods", "binding", "POST":
                return json_answer(
                    await reviews.bind(self._api, served, key, await body_of(request)), 201
                )
            case "pods", "eviction", "POST":
                return json_answer(
                    await reviews.evict(self._api, served, key, await body_of(request)), 201
                )
            case "serviceaccounts", "token", "POST":
                tokens = self._access.tokens
                return json_answer(tokens.issue(*key, await body_of(request)), 201)
            case "namespaces", "finalize", "PUT":
                options = options_of(request)
                entry = await self._api.update(served, key, await body_of(request), options)
                return self._object(request, served, entry, "", options.warnings, 200)
            case _:
                return None

    async def _review(self, request: web.Request, target: Target) -> web.Response:
        if request.method != "POST":
            raise not_allowed(f"{request.method} on {request.path}")
        body = await body_of(request)
        return json_answer(self._access.reviews.answer(target, body, request[USER]), 201)

    # What the verbs share.

    def _home(self, served: Served, body: Any) -> tuple[Served, Any]:
        """Where objects of ``served`` are written, and the body for there."""
        if served.api_version != event_versions.NEW:
            return served, body
        return self._api.registry.find("", "v1", "events"), event_versions.stored(body)

    def _matcher(self, request: web.Request, served: Served) -> Matcher | None:
        labels = request.query.get("labelSelector", "")
        fields = request.query.get("fieldSelector", "")
        return both(
            label_matcher(labels) if labels else None,
            field_matcher(fields, served.resource, served.selectable) if fields else None,
        )

    def _object(
        self,
        request: web.Request,
        served: Served,
        entry: Entry,
        subresource: str,
        warnings: list[str],
        status: int,
    ) -> web.Response:
        form = form_of(request.headers.get("Accept", ""), request.query)
        if subresource == "scale":
            body = encode(scaling.scale_of(entry, served))
        else:
            body = object_body(served, entry, form)
        response = web.Response(body=body, status=status, content_type="application/json")
        return with_warnings(response, warnings)
