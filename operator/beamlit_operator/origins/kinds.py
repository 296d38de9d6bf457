"""The kinds of origins: one row each, and what a row is made of.

| kind | written                  | look, read | transfer         | keeps revisions |
|------|--------------------------|------------|------------------|-----------------|
| s3   | ``s3://bucket/prefix``   | ``s3``     | ``s3_transfer``  | no              |
| hub  | ``hf://org/name@branch`` | ``hub``    | ``hub_transfer`` | yes             |
| web  | ``https://host/file``    | ``web``    | ``web_transfer`` | no              |
| oci  | ``oci://host/name:tag``  | ``oci``    | ``oci_transfer`` | yes             |
| pvc  | ``pvc://claim/folder``   | ``claim``  | none: mounted    | by their text   |

Who looks and reads stands in ``stores``, who transfers in ``fetching``.

A store's library takes up to half a second to import, and a fetch runs in every cold start. So a
row names its modules in functions, and only those of the store that is used are imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypedDict, TypeVar, Unpack

from beamlit_operator.origins.claimref import ClaimRef
from beamlit_operator.origins.errors import invalid
from beamlit_operator.origins.fetching.progress import Progress
from beamlit_operator.origins.fetching.staging import Staging
from beamlit_operator.origins.listing import MAX_READ_BYTES, OriginFile, ResolvedOrigin
from beamlit_operator.origins.ociref import DEFAULT_FOLDER, OciRef, parse_reference
from beamlit_operator.origins.ref import (
    DEFAULT_HUB_REVISION,
    HubRef,
    OriginRef,
    S3Ref,
)
from beamlit_operator.origins.stores.trust import read_authorities
from beamlit_operator.origins.webref import WebFile, WebRef, without_query

_R = TypeVar("_R", bound=OriginRef)
_C = TypeVar("_C", bound=OriginRef, contravariant=True)


class Store(Protocol[_C]):
    """A module that asks a store. It blocks, and fails with ``OriginError`` only."""

    def look(self, ref: _C, credentials: Mapping[str, str], /) -> ResolvedOrigin:
        """Which immutable revision ``ref`` means now, and what it holds."""

    def read(
        self,
        ref: _C,
        credentials: Mapping[str, str],
        file: OriginFile,
        start: int,
        length: int,
        /,
    ) -> bytes:
        """A part of one listed file; less at its end. ``ref`` is at the listing's revision."""


class Transfer(Protocol):
    """Brings files into a staging area."""

    def run(self, files: list[OriginFile], /) -> None:
        """Brings ``files`` and hands each to the staging area, verified.

        Raises:
            OriginError: the first failure; what is under way is ended first.
            OSError: the disk's failures.
        """


class Carrier(Protocol[_C]):
    """How a transfer is made."""

    def __call__(
        self, ref: _C, credentials: Mapping[str, str], /, *, staging: Staging, progress: Progress
    ) -> Transfer:
        """``ref`` is at the revision that is fetched."""


class Options(TypedDict, total=False):
    """What may be said of an origin beside its uri. A kind takes what it knows."""

    endpoint: str | None
    region: str | None
    addressing_style: str
    versioned: bool
    version_id: str | None
    as_of: str | None
    allow_patterns: tuple[str, ...]
    ignore_patterns: tuple[str, ...]
    sha256: str | None
    path: str | None
    mounted: bool
    also: tuple[str, ...]
    """More files: sha256, url and path (or none) of each, with a space between."""


@dataclass(frozen=True, slots=True)
class Kind(Generic[_R]):
    """One kind of origin.

    Attributes:
        ref: the class of its references.
        schemes: what its uris begin with.
        example: a uri, for messages.
        parse: makes a reference of a uri.
        store: imports who looks and reads.
        carrier: imports who fetches.
        variables: environment variables of a fetch that hold credentials, and how the store's
            modules call each.
        endpoint_variable: the environment variable of a fetch with the store's address.
    """

    ref: type[_R]
    schemes: tuple[str, ...]
    example: str
    parse: Callable[[str, Options], _R]
    store: Callable[[], Store[_R]]
    carrier: Callable[[], Carrier[_R]]
    variables: Mapping[str, str] = field(default_factory=dict)
    endpoint_variable: str = ""

    def credentials(self, environment: Mapping[str, str]) -> dict[str, str]:
        """The credentials that a fetch's environment holds."""
        named = {
            name: environment[variable]
            for variable, name in self.variables.items()
            if environment.get(variable)
        }
        return {**named, **read_authorities(environment)}


def _parse_s3(uri: str, options: Options) -> S3Ref:
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    return S3Ref(
        bucket,
        prefix.strip("/"),
        endpoint=options.get("endpoint") or None,
        region=options.get("region") or None,
        addressing_style=options.get("addressing_style") or "auto",
        versioned=options.get("versioned", False),
        version_id=options.get("version_id"),
        as_of=options.get("as_of"),
    )


def _s3() -> Store[S3Ref]:
    from beamlit_operator.origins.stores import s3

    return s3


def _s3_carrier() -> Carrier[S3Ref]:
    from beamlit_operator.origins.fetching import s3_transfer

    return s3_transfer.Transfer


def _parse_hub(uri: str, options: Options) -> HubRef:
    repo, at, revision = uri.removeprefix("hf://").partition("@")
    return HubRef(
        repo.strip("/"),
        revision if at else DEFAULT_HUB_REVISION,
        endpoint=options.get("endpoint") or None,
        allow_patterns=options.get("allow_patterns", ()),
        ignore_patterns=options.get("ignore_patterns", ()),
    )


def _hub() -> Store[HubRef]:
    from beamlit_operator.origins.stores import hub

    return hub


def _hub_carrier() -> Carrier[HubRef]:
    from beamlit_operator.origins.fetching import hub_transfer

    return hub_transfer.Transfer


def _parse_web(uri: str, options: Options) -> WebRef:
    digest = options.get("sha256")
    if not digest:
        raise invalid(f"{without_query(uri)}: its digest is needed: add --sha256 HEX")
    files = [WebFile(uri, digest, options.get("path") or "")]
    for line in options.get("also", ()):
        digest, _, rest = line.partition(" ")
        url, _, path = rest.partition(" ")
        files.append(WebFile(url, digest, path))
    return WebRef(tuple(files))


def _web() -> Store[WebRef]:
    from beamlit_operator.origins.stores import web

    return web


def _web_carrier() -> Carrier[WebRef]:
    from beamlit_operator.origins.fetching import web_transfer

    return web_transfer.Transfer


def _parse_oci(uri: str, options: Options) -> OciRef:
    folder = options.get("path")
    return parse_reference(
        uri,
        folder=DEFAULT_FOLDER if folder is None else folder,
        mounted=options.get("mounted", False),
    )


def _oci() -> Store[OciRef]:
    from beamlit_operator.origins.stores import oci

    return oci


def _oci_carrier() -> Carrier[OciRef]:
    from beamlit_operator.origins.fetching import oci_transfer

    return oci_transfer.Transfer


def _parse_claim(uri: str, options: Options) -> ClaimRef:
    claim, _, path = uri.removeprefix("pvc://").partition("/")
    return ClaimRef(claim, path.strip("/"))


def _claim() -> Store[ClaimRef]:
    from beamlit_operator.origins.stores import claim

    return claim


def _claim_carrier() -> Carrier[ClaimRef]:
    raise invalid("a claim's files are mounted and checked where they are, and not fetched")


KINDS: tuple[Kind[Any], ...] = (
    Kind(
        ref=S3Ref,
        schemes=("s3",),
        example="s3://BUCKET/PREFIX",
        parse=_parse_s3,
        store=_s3,
        carrier=_s3_carrier,
        # Spelled out: `identity` imports botocore.
        variables={
            name: name
            for name in (
                "AWS_ACCESS_KEY_ID",
                "AWS_SECRET_ACCESS_KEY",
                "AWS_SESSION_TOKEN",
                "AWS_ROLE_ARN",
                "AWS_ROLE_SESSION_NAME",
                "AWS_WEB_IDENTITY_TOKEN_FILE",
                "AWS_ENDPOINT_URL_STS",
                "BEAMLIT_NODE_CREDENTIALS",
            )
        },
        endpoint_variable="AWS_ENDPOINT_URL",
    ),
    Kind(
        ref=HubRef,
        schemes=("hf",),
        example="hf://ORGANISATION/NAME",
        parse=_parse_hub,
        store=_hub,
        carrier=_hub_carrier,
        variables={"HF_TOKEN": "token"},
        endpoint_variable="HF_ENDPOINT",
    ),
    Kind(
        ref=WebRef,
        schemes=("https", "http"),
        example="https://HOST/FILE",
        parse=_parse_web,
        store=_web,
        carrier=_web_carrier,
        variables={
            f"BEAMLIT_HTTP_{name.upper()}": name for name in ("token", "username", "password")
        },
    ),
    Kind(
        ref=OciRef,
        schemes=("oci",),
        example="oci://REGISTRY/NAME:TAG",
        parse=_parse_oci,
        store=_oci,
        carrier=_oci_carrier,
        variables={"BEAMLIT_DOCKER_CONFIG": ".dockerconfigjson"},
    ),
    Kind(
        ref=ClaimRef,
        schemes=("pvc",),
        example="pvc://CLAIM/FOLDER",
        parse=_parse_claim,
        store=_claim,
        carrier=_claim_carrier,
    ),
)

_BY_REF = {kind.ref: kind for kind in KINDS}
_BY_SCHEME = {scheme: kind for kind in KINDS for scheme in kind.schemes}


def kind_of(ref: OriginRef) -> Kind[Any]:
    """The row of a reference."""
    return _BY_REF[type(ref)]


def kind_of_uri(uri: str) -> Kind[Any]:
    """The row that a uri's scheme names.

    Raises:
        OriginError: ``InvalidReference``, if there is none.
    """
    scheme, separator, _ = uri.partition("://")
    if not separator:
        examples = " or ".join(kind.example for kind in KINDS)
        raise invalid(f"{uri!r} has no scheme: use {examples}")
    if scheme not in _BY_SCHEME:
        known = [f"{each}://" for each in _BY_SCHEME]
        raise invalid(
            f"{uri!r} has scheme {scheme!r}: only {', '.join(known[:-1])} and {known[-1]} are known"
        )
    return _BY_SCHEME[scheme]


def parse_uri(uri: str, **options: Unpack[Options]) -> OriginRef:
    """The reference ``uri`` stands for.

    Raises:
        OriginError: ``InvalidReference``, if its scheme is not known or it cannot exist.
    """
    ref: OriginRef = kind_of_uri(uri).parse(uri, options)
    return ref


def look(ref: OriginRef, credentials: Mapping[str, str]) -> ResolvedOrigin:
    """Which immutable revision ``ref`` means now, and what it holds. Blocks.

    Raises:
        OriginError: every failure.
    """
    found: ResolvedOrigin = kind_of(ref).store().look(ref, credentials)
    return found


def read(
    ref: OriginRef,
    credentials: Mapping[str, str],
    file: OriginFile,
    start: int,
    length: int,
) -> bytes:
    """``length`` bytes of a listed file from ``start`` on; less at its end. Blocks.

    Args:
        ref: at the listing's revision: ``ref.at(listing.revision)``.
        credentials: as for ``look``.
        file: of the listing.
        start: the first byte.
        length: at most :data:`MAX_READ_BYTES`.

    Raises:
        OriginError: every failure; ``Changed``, if the file is not the listed one any more.
        ValueError: for a range that must not be asked for.
    """
    if start < 0 or not 0 <= length <= MAX_READ_BYTES:
        raise ValueError(f"a read of {length} bytes from {start} on: at most {MAX_READ_BYTES}")
    length = min(length, file.size - start)
    if length <= 0:
        return b""
    part: bytes = kind_of(ref).store().read(ref, credentials, file, start, length)
    return part
