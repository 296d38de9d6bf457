"""From what a client sent to what would be stored: decoding, defaulting, checking, ownership.

Pure but for the clock: every function takes the old object and the new one, and returns or
completes the new one, or raises the refusal a client gets.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any, Literal

from beamlit_operator.devcluster.apiserver import managers
from beamlit_operator.devcluster.apiserver.builtin_rules import (
    builtin_causes,
    keep_allocated,
    set_builtin_defaults,
)
from beamlit_operator.devcluster.apiserver.crd_checks import crd_causes
from beamlit_operator.devcluster.apiserver.crd_schema import prune_keywords
from beamlit_operator.devcluster.apiserver.custom_rules import custom_causes, custom_warnings
from beamlit_operator.devcluster.apiserver.errors import (
    bad_request,
    bad_value,
    conflict,
    invalid,
    required,
)
from beamlit_operator.devcluster.apiserver.metadata import (
    check_shape,
    keep_server_fields,
    metadata_causes,
    name_causes,
    now_text,
    stamp_new,
)
from beamlit_operator.devcluster.apiserver.schemas import META
from beamlit_operator.devcluster.apiserver.served import Served, wrong_kind
from beamlit_operator.devcluster.apiserver.store import Entry
from beamlit_operator.devcluster.apiserver.structural import drop_nulls, prune, set_defaults
from beamlit_operator.devcluster.apiserver.users import ADMIN, User
from beamlit_operator.devcluster.apiserver.validating import Checker, builtin_checker, causes_of
from beamlit_operator.kube import ApiError, Json

FieldValidation = Literal["Strict", "Warn", "Ignore"]


@dataclass(frozen=True, slots=True)
class Options:
    """How a client wants its write done.

    Attributes:
        manager: the field manager.
        dry_run: answer as if it were stored, and store nothing.
        validation: what to do about unknown fields.
        force: take fields that other appliers own.
        warnings: collects what the client should be told.
        doubled: the keys that the body had twice, a sentence each.
        user: who asks, for admission.
    """

    manager: str = "unknown"
    dry_run: bool = False
    validation: FieldValidation = "Warn"
    force: bool = False
    warnings: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    user: User = ADMIN


class UndecodableError(ApiError):
    """400: the body does not fit the Go types of a built-in kind."""

    def __init__(self, message: str) -> None:
        super().__init__(400, "BadRequest", message)


def checked_body(served: Served, body: Any) -> Json:
    """``body`` as an object of ``served`` with sound metadata.

    Raises:
        ApiError: 400.
    """
    if not isinstance(body, dict):
        raise bad_request(f"the body must be a {served.kind} object")
    error = wrong_kind(served, body)
    if error is not None:
        raise error
    if served.custom and not body.get("kind"):
        raise bad_request(
            f"the object provided is unrecognized (must be of type {served.kind}): Object 'Kind' "
            "is missing"
        )
    body["apiVersion"] = served.api_version
    body["kind"] = served.kind
    if body.get("metadata") is None:
        body["metadata"] = {}
    check_shape(body["metadata"])
    return body


def decode(
    served: Served, item: Json, options: Options, *, creating: bool, applied: bool = False
) -> None:
    """Prunes, fills in constant defaults, and brings ``item`` into the stored form, in place.

    Null means absent, but not in what was ``applied``: there somebody would own it.

    Raises:
        ApiError: 400 for unknown fields under strict validation, 400 or 422 for a built-in type
            that breaks its schema.
    """
    item.setdefault("metadata", {})
    unknown = prune(item, served.root, nulls=not served.custom)
    if served.plural == "customresourcedefinitions":
        unknown += prune_keywords(item)
    if (unknown or options.doubled) and options.validation != "Ignore":
        texts = [f'unknown field "{path}"' for path in unknown] + options.doubled
        if options.validation == "Strict":
            raise bad_request(_cannot_handle(served, f"strict decoding error: {', '.join(texts)}"))
        options.warnings.extend(texts)
    if served.custom and not applied:
        drop_nulls(item, served.root)
    if not served.custom and "spec" in served.root.properties:
        # In Go it is a plain struct: always there, so that what it requires is asked for.
        item.setdefault("spec", {})
    set_defaults(item, served.root)
    item["apiVersion"] = served.stored_api_version
    if served.custom:
        _check_metadata(served, item)
    else:
        _check_builtin(served, item)
        set_builtin_defaults(served.resource, item, creating=creating)


def _cannot_handle(served: Served, problem: str) -> str:
    return (
        f'{served.kind} in version "{served.version}" cannot be handled as a {served.kind}: '
        f"{problem}"
    )


@functools.cache
def _metadata_checker() -> Checker:
    return builtin_checker(META + "ObjectMeta")


def _check_metadata(served: Served, item: Json) -> None:
    """A custom resource's schema says nothing about its metadata, which is typed all the same."""
    causes = causes_of(_metadata_checker(), item["metadata"])
    if causes:
        raise bad_request(
            f"{served.kind}: " + "; ".join(f"metadata.{c.field}: {c.message}" for c in causes)
        )


def _check_builtin(served: Served, item: Json) -> None:
    checker = served.checker
    causes = causes_of(checker, item) if checker is not None else []
    undecodable = [c for c in causes if c.reason != "FieldValueRequired"]
    if undecodable:
        # A real API server cannot even decode this into its Go types.
        raise UndecodableError(
            _cannot_handle(
                served,
                "; ".join(
                    f"{c.field}: {c.message.removeprefix('Invalid value: ')}" for c in undecodable
                ),
            )
        )
    if causes:
        raise invalid(served.group, served.kind, item["metadata"].get("name", ""), causes)


def check(
    served: Served, item: Json, old: Json | None, *, warnings: list[str] | None = None
) -> None:
    """Refuses ``item`` if it breaks a rule; ``warnings`` takes what is allowed but unwise.

    Raises:
        ApiError: 422 with all causes.
    """
    metadata = item["metadata"]
    causes = name_causes(served, metadata["name"]) if old is None else []
    if old is None or old["metadata"] is not metadata:
        causes += metadata_causes(served, metadata)
    if served.custom:
        causes += custom_causes(served, item, old)
    else:
        causes += builtin_causes(served.resource, item, old)
        if served.plural == "customresourcedefinitions":
            causes += crd_causes(item, old)
    if causes:
        raise invalid(served.group, served.kind, metadata["name"], causes)
    if warnings is not None and served.custom:
        warnings += custom_warnings(item, old)


def new_object(served: Served, item: Json, options: Options) -> None:
    """Completes a decoded ``item`` for its creation: what the server sets, and ownership."""
    stamp_new(item)
    if served.status and (served.custom or served.resource in _STATUS_FROM_SERVER):
        item.pop("status", None)
    if served.generation:
        item["metadata"]["generation"] = 1


_STATUS_FROM_SERVER = frozenset(
    (
        "deployments.apps",
        "replicasets.apps",
        "horizontalpodautoscalers.autoscaling",
        "ingresses.networking.k8s.io",
        "poddisruptionbudgets.policy",
        "customresourcedefinitions.apiextensions.k8s.io",
    )
)
"""Types whose ``status`` in a create is dropped; nodes keep theirs, others get an initial one."""


def own_created(served: Served, item: Json, options: Options) -> None:
    """Records the creator as the owner of all that it set."""
    writer = managers.Writer(options.manager, "", served.api_version, now_text())
    item["metadata"].pop("managedFields", None)
    found = managers.updated(None, item, served.root, writer=writer)
    if found:
        item["metadata"]["managedFields"] = managers.written(found)


def changed_object(
    served: Served,
    entry: Entry,
    new: Json,
    options: Options,
    *,
    subresource: str,
    managed: list[Json] | None = None,
    replacing: bool = False,
) -> Json | None:
    """Completes ``new``, a private copy, as the successor of ``entry``; None if nothing changes.

    ``managed`` is its managedFields when they are known already (from an apply); ``replacing``
    says that all of it came from the client (PUT).

    Raises:
        ApiError: 400, 409 or 422.
    """
    old = entry.obj
    checked_body(served, new)
    before, after = old["metadata"], new["metadata"]
    _same_identity(served, before, after)
    version = after.get("resourceVersion")
    if replacing:
        _check_replaced(served, before, after)
    if version not in (None, "", before["resourceVersion"]):
        if not version.isdigit():
            raise invalid(
                served.group,
                served.kind,
                before["name"],
                [bad_value("metadata.resourceVersion", version, "must be specified for an update")],
            )
        raise conflict(served.group, served.plural, before["name"])
    reset = after.get("managedFields") in ([{}],)
    causes = keep_server_fields(old, new)
    if subresource == "status":
        new = {**old, "status": new.get("status"), "apiVersion": served.api_version}
        if new["status"] is None:
            del new["status"]
        new["metadata"] = {**before}
    elif served.status:
        new.pop("status", None)
        if "status" in old:
            new["status"] = old["status"]
    new["metadata"]["resourceVersion"] = before["resourceVersion"]
    keep_allocated(served.resource, old, new)
    decode(served, new, options, creating=False, applied=managed is not None)
    if served.generation and subresource != "status" and _spec_changed(served, old, new):
        new["metadata"]["generation"] = before.get("generation", 0) + 1
    if causes:
        raise invalid(served.group, served.kind, before["name"], causes)
    if managed is not None:
        new["metadata"]["managedFields"] = managed
    else:
        _own_changed(served, old, new, options, subresource, reset=reset)
    if new == old:
        return None
    return new


def _check_replaced(served: Served, before: Json, after: Json) -> None:
    """Refuses a PUT of another object, and one that would overwrite blindly where it may not."""
    name, uid = before["name"], after.get("uid")
    if not after.get("resourceVersion") and not served.unconditional:
        cause = bad_value("metadata.resourceVersion", 0, "must be specified for an update")
        raise invalid(served.group, served.plural, name, [cause])
    if uid and uid != before["uid"]:
        why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: "
        raise conflict(served.group, served.plural, name, why + before["uid"])


def _own_changed(
    served: Served, old: Json, new: Json, options: Options, subresource: str, *, reset: bool
) -> None:
    metadata = new["metadata"]
    writer = managers.Writer(options.manager, subresource, served.api_version, now_text())
    metadata.pop("managedFields", None)
    found = {} if reset else managers.updated(old, new, served.root, writer=writer)
    if found:
        metadata["managedFields"] = managers.written(found)


def check_named(metadata: Json, name: str) -> None:
    """Refuses a body that does not carry the name in its URL.

    Raises:
        ApiError: 400.
    """
    if not metadata.get("name"):
        raise bad_request(
            f"the name of the object ({name} based on URL) was undeterminable: name must be "
            "provided"
        )
    if metadata["name"] != name:
        raise bad_request(
            f"the name of the object ({metadata['name']}) does not match the name on the URL "
            f"({name})"
        )


def _same_identity(served: Served, before: Json, after: Json) -> None:
    after.setdefault("name", before["name"])
    check_named(after, before["name"])
    namespace = before.get("namespace", "")
    if after.get("namespace", namespace) != namespace:
        raise bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )


def _spec_changed(served: Served, old: Json, new: Json) -> bool:
    """Whether anything but metadata (and, where it is a subresource, status) differs."""
    skipped = {"metadata", "apiVersion", "kind"} | ({"status"} if served.status else set())
    return {k: v for k, v in old.items() if k not in skipped} != {
        k: v for k, v in new.items() if k not in skipped
    }


def applied_object(
    served: Served, live: Json, config: Json, options: Options, *, subresource: str
) -> tuple[Json, list[Json]]:
    """Server-side apply: the merged object (sharing with ``live``) and its managedFields.

    Raises:
        ApiError: 400, or 409 for fields that others own.
    """
    checked_body(served, config)
    if config["metadata"].pop("managedFields", None):
        raise bad_request("metadata.managedFields must be nil")
    if options.doubled and options.validation == "Strict":
        raise bad_request(
            _cannot_handle(served, f"strict decoding error: {', '.join(options.doubled)}")
        )
    options.warnings.extend(options.doubled)
    options.doubled.clear()
    writer = managers.Writer(options.manager, subresource, served.api_version, now_text())
    merged, found = managers.applied(
        live,
        config,
        served.root,
        writer=writer,
        force=options.force,
        has_status=served.status,
    )
    return merged, managers.written(found)


def need_name(served: Served, item: Json) -> str:
    """The object's name.

    Raises:
        ApiError: 422, it has none.
    """
    name = item["metadata"].get("name")
    if not name:
        raise invalid(
            served.group,
            served.kind,
            "",
            [required("metadata.name", "name or generateName is required")],
        )
    return str(name)
