"""Brings the blobs of a model in a registry, as :mod:`.web_transfer` brings files.

Registries send ranges, and name a blob by the SHA-256 of its content: nothing more is needed than
to be let in. A token that ends meanwhile is renewed by :class:`origins.stores.oci.Registry`.
"""

from __future__ import annotations

from beamlit_operator.origins.fetching import web_transfer
from beamlit_operator.origins.ociref import OciRef
from beamlit_operator.origins.stores import oci


class Transfer(web_transfer.Carried[OciRef]):
    """Brings the blobs of one manifest."""

    def _connected(self) -> oci.Registry:
        return oci.Registry(self._ref, self._credentials)
