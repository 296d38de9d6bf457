"""Origins: where a Model's files come from.

``resolve`` asks a store which immutable revision a reference means and what it holds (the operator
does this); ``fetch`` brings exactly that revision into a directory (the init container does this).
Importing this package is cheap: the stores' libraries are imported only when one is used, and only
the one that is used.

What is worth a name outside stands here; what the words mean, in ``ref``, ``listing`` and
``errors``. Below are ``stores`` (who asks), ``fetching`` (how files arrive) and ``inspection``
(what they say).
"""

from beamlit_operator.origins.claimref import ClaimRef
from beamlit_operator.origins.errors import OriginError, OriginReason
from beamlit_operator.origins.kinds import parse_uri, read
from beamlit_operator.origins.listing import OriginFile, ResolvedOrigin
from beamlit_operator.origins.ociref import OciRef, parse_reference
from beamlit_operator.origins.ref import HubRef, OriginRef, S3Ref, format_uri
from beamlit_operator.origins.resolve import resolve
from beamlit_operator.origins.webref import WebFile, WebRef

__all__ = [
    "ClaimRef",
    "HubRef",
    "OciRef",
    "OriginError",
    "OriginFile",
    "OriginReason",
    "OriginRef",
    "ResolvedOrigin",
    "S3Ref",
    "WebFile",
    "WebRef",
    "format_uri",
    "parse_reference",
    "parse_uri",
    "read",
    "resolve",
]
