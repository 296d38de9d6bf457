"""The bytes of answers: plain objects, tables or metadata, single, listed or watched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from beamlit_operator.devcluster.apiserver.errors import bad_request
from beamlit_operator.devcluster.apiserver.listing import Page
from beamlit_operator.devcluster.apiserver.local import bookmark
from beamlit_operator.devcluster.apiserver.served import Served
from beamlit_operator.devcluster.apiserver.store import Entry, encode
from beamlit_operator.devcluster.apiserver.tables import table
from beamlit_operator.devcluster.apiserver.watch import Seen
from beamlit_operator.kube import ApiError, Json


@dataclass(frozen=True, slots=True)
class Form:
    """How the client wants objects: as they are, in a table, or their metadata."""

    shape: Literal["object", "table", "metadata"] = "object"
    include: str = "Metadata"
    """How much of the object comes with a table row: None, Metadata or Object."""


_JSON: Final = ("application/json", "application/*", "*/*")


def wants_yaml(accept: str) -> bool:
    """Whether YAML is the first representation asked for that there is."""
    kinds = (option.split(";")[0].strip() for option in accept.split(","))
    return next((kind for kind in kinds if kind in (*_JSON, "application/yaml")), "").endswith(
        "yaml"
    )


def form_of(accept: str, query: Mapping[str, str]) -> Form:
    """The first acceptable form.

    Raises:
        ApiError: 400 or 406.
    """
    include = query.get("includeObject", "Metadata")
    if include not in ("None", "Metadata", "Object"):
        raise bad_request(f"includeObject: {include!r} must be None, Metadata or Object")
    for option in accept.split(",") if accept else ["*/*"]:
        media_type, *parameters = (part.strip() for part in option.split(";"))
        traits = dict(p.split("=", 1) for p in parameters if "=" in p)
        if media_type not in (*_JSON, "application/yaml"):
            continue
        match traits.get("as"):
            case None:
                return Form()
            case "Table" if traits.get("v") == "v1":
                return Form("table", include)
            case "PartialObjectMetadata" | "PartialObjectMetadataList" if traits.get("v") == "v1":
                return Form("metadata")
    raise ApiError(
        406,
        "NotAcceptable",
        "only the following media types are accepted: application/json, application/yaml",
    )


def _metadata_only(item: Json) -> Json:
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": item["metadata"],
    }


def object_body(served: Served, entry: Entry, form: Form) -> bytes:
    """One object."""
    if form.shape == "table":
        return encode(table(served, [entry], headers=True, include=form.include))
    if form.shape == "metadata":
        return encode(_metadata_only(entry.obj))
    return entry.encoded(served.api_version)


def list_body(served: Served, found: Page, form: Form) -> bytes:
    """A page of a list; objects are joined from their cached encodings."""
    metadata: Json = {"resourceVersion": str(found.version)}
    if found.token:
        metadata["continue"] = found.token
        if found.remaining is not None:
            metadata["remainingItemCount"] = found.remaining
    if form.shape == "table":
        result = table(served, found.entries, headers=True, include=form.include)
        result["metadata"] = metadata
        return encode(result)
    if form.shape == "metadata":
        return encode(
            {
                "kind": "PartialObjectMetadataList",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata,
                "items": [_metadata_only(entry.obj) for entry in found.entries],
            }
        )
    head = encode(
        {"kind": served.list_kind, "apiVersion": served.api_version, "metadata": metadata}
    )
    version = served.api_version
    items = b",".join(
        entry.encoded(version) if served.custom else entry.item(version) for entry in found.entries
    )
    return head[:-1] + b',"items":[' + items + b"]}"


def watch_lines(served: Served, batch: list[Seen], form: Form, *, headers: bool) -> bytes:
    """Events as they go down the wire, one a line."""
    return b"".join(_line(served, seen, form, headers=headers) for seen in batch)


def _line(served: Served, seen: Seen, form: Form, *, headers: bool) -> bytes:
    if seen.entry is None:
        item = bookmark(served, seen.version)
        if seen.initial_end:
            item["metadata"]["annotations"] = {"k8s.io/initial-events-end": "true"}
        body = encode(item)
    elif form.shape == "table":
        body = encode(table(served, [seen.entry], headers=headers, include=form.include))
    else:
        body = object_body(served, seen.entry, form)
    return b'{"type":"' + seen.kind.encode() + b'","object":' + body + b"}\n"
