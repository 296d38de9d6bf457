"""The rules of ``metadata``: names, what the server sets, what nobody may change."""

from __future__ import annotations

import re
import secrets
import uuid
from datetime import UTC, datetime
from typing import Any, Final

from beamlit_operator.devcluster.apiserver.errors import (
    Cause,
    bad_request,
    bad_value,
    forbidden_field,
    show,
)
from beamlit_operator.devcluster.apiserver.served import Served
from beamlit_operator.kube import Json

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")

_SUBDOMAIN_RULE: Final = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "
    "for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_RULE: Final = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and "
    "must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used "
    "for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_LABEL_1035_RULE: Final = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an "
    "alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', "
    "regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
)
_QUALIFIED_RULE: Final = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end "
    "with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for "
    "validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_VALUE_RULE: Final = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  "
    "or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_STANDARD_FINALIZERS: Final = frozenset(("kubernetes", "orphan", "foregroundDeletion"))
_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"
"""The letters of generated names: no vowels, so no words."""

_LABEL_NAMES: Final = frozenset(("namespaces",))
_FREE_NAMES: Final = frozenset(("rbac.authorization.k8s.io",))
"""Groups whose names only have to be path segments."""


def now_text() -> str:
    """The time as ``creationTimestamp`` has it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def generated_name(prefix: str) -> str:
    """``prefix`` and five random letters, at most 63 characters."""
    return prefix[:58] + "".join(secrets.choice(_ALPHABET) for _ in range(5))


def name_causes(served: Served, name: str) -> list[Cause]:
    """Why ``name`` may not name such an object."""
    path = "metadata.name"
    if served.group in _FREE_NAMES:
        if name in (".", "..") or "/" in name or "%" in name:
            return [bad_value(path, name, "may not be '.' or '..' or contain '/' or '%'")]
        return []
    if served.plural == "services" and not served.group:
        if "." in name:
            return [bad_value(path, name, "must not contain dots")]
        if len(name) > 63 or not _LABEL_1035.fullmatch(name):
            return [bad_value(path, name, _LABEL_1035_RULE)]
    elif served.plural in _LABEL_NAMES and not served.group:
        if len(name) > 63 or not _LABEL.fullmatch(name):
            return [bad_value(path, name, _LABEL_RULE)]
    elif len(name) > 253:
        return [bad_value(path, name, "must be no more than 253 characters")]
    elif not _SUBDOMAIN.fullmatch(name):
        return [bad_value(path, name, _SUBDOMAIN_RULE)]
    return []


def check_shape(metadata: Any) -> None:
    """Refuses metadata of the wrong types, before anything reads it.

    Raises:
        ApiError: 400.
    """
    if not isinstance(metadata, dict):
        raise bad_request("metadata: must be an object")
    for name in ("labels", "annotations"):
        values = metadata.get(name)
        if values is None:
            metadata.pop(name, None)
        elif not isinstance(values, dict) or not all(isinstance(v, str) for v in values.values()):
            raise bad_request(f"metadata.{name}: must map strings to strings")
    for name in ("name", "namespace", "generateName", "uid", "resourceVersion"):
        value = metadata.get(name)
        if value is None:
            metadata.pop(name, None)
        elif not isinstance(value, str):
            raise bad_request(f"metadata.{name}: must be a string")
    for name in ("finalizers", "ownerReferences", "managedFields"):
        values = metadata.get(name)
        if values is None or values == []:
            metadata.pop(name, None)
        elif not isinstance(values, list):
            raise bad_request(f"metadata.{name}: must be a list")
        elif name == "finalizers" and not all(isinstance(value, str) for value in values):
            raise bad_request("metadata.finalizers: must be a list of strings")
        elif name != "finalizers" and not all(isinstance(value, dict) for value in values):
            raise bad_request(f"metadata.{name}: must be a list of objects")


def metadata_causes(served: Served, metadata: Json) -> list[Cause]:
    """What is wrong with labels, annotations, owners and finalizers."""
    causes: list[Cause] = []
    for key, value in (metadata.get("labels") or {}).items():
        causes += _qualified_causes("metadata.labels", key)
        if len(value) > 63 or not _LABEL_VALUE.fullmatch(value):
            causes.append(
                bad_value(
                    "metadata.labels",
                    value,
                    "must be no more than 63 characters" if len(value) > 63 else _VALUE_RULE,
                )
            )
    size = 0
    for key, value in (metadata.get("annotations") or {}).items():
        causes += _qualified_causes("metadata.annotations", key.lower())
        size += len(key) + len(value)
    if size > 256 * 1024:
        causes.append(
            Cause(
                "FieldValueTooLong",
                "Too long: may not be more than 262144 bytes",
                "metadata.annotations",
            )
        )
    controllers = 0
    for owner in metadata.get("ownerReferences") or ():
        path = "metadata.ownerReferences"
        causes += [
            bad_value(f"{path}.{name}", "", "must not be empty")
            for name in ("apiVersion", "kind", "name", "uid")
            if not owner.get(name)
        ]
        controllers += owner.get("controller") is True
    if controllers > 1:
        causes.append(
            bad_value(
                "metadata.ownerReferences",
                metadata["ownerReferences"],
                "Only one reference can have Controller set to true",
            )
        )
    for index, finalizer in enumerate(metadata.get("finalizers") or ()):
        causes += _qualified_causes("metadata.finalizers", finalizer)
        if (
            "/" not in finalizer
            and finalizer not in _STANDARD_FINALIZERS
            and not served.custom
            and served.group != "apiextensions.k8s.io"
        ):
            why = "name is neither a standard finalizer name nor is it fully qualified"
            causes.append(bad_value(f"metadata.finalizers[{index}]", finalizer, why))
    return causes


def _qualified_causes(path: str, key: str) -> list[Cause]:
    prefix, slash, name = key.rpartition("/")
    if len(name) > 63:
        return [bad_value(path, key, "name part must be no more than 63 characters")]
    if not _QUALIFIED.fullmatch(name):
        return [bad_value(path, key, _QUALIFIED_RULE)]
    if slash and (len(prefix) > 253 or not _SUBDOMAIN.fullmatch(prefix)):
        return [bad_value(path, key, "prefix part " + _SUBDOMAIN_RULE)]
    return []


def stamp_new(item: Json) -> None:
    """Sets what the server alone sets on a new object, whatever the client sent."""
    metadata = item["metadata"]
    metadata["uid"] = str(uuid.uuid4())
    metadata["creationTimestamp"] = now_text()
    for name in (
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "generation",
        "resourceVersion",
    ):
        metadata.pop(name, None)


_SERVER_SET: Final = (
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "generateName",
    "uid",
    "namespace",
)


def keep_server_fields(old: Json, new: Json) -> list[Cause]:
    """Carries over to ``new`` what an update cannot change; says what it tried to change."""
    before, after = old["metadata"], new["metadata"]
    causes: list[Cause] = []
    uid = after.get("uid")
    if uid and uid != before["uid"]:
        causes.append(bad_value("metadata.uid", uid, "field is immutable"))
    for name in _SERVER_SET:
        if name in before:
            after[name] = before[name]
        else:
            after.pop(name, None)
    if before.get("deletionTimestamp"):
        known = set(before.get("finalizers") or ())
        added = [item for item in after.get("finalizers") or () if item not in known]
        if added:
            causes.append(
                forbidden_field(
                    "metadata.finalizers",
                    "no new finalizers can be added if the object is being deleted, found new "
                    f"finalizers []string{{{', '.join(show(name) for name in added)}}}",
                )
            )
    return causes
