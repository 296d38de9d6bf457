"""A Kubernetes API server in one process, for laptops, demos and tests; never for production.

It answers like Kubernetes or refuses with 405 or 501; it never pretends.
"""

from beamlit_operator.devcluster.apiserver.local import LocalClient
from beamlit_operator.devcluster.apiserver.server import ApiServer

__all__ = ["ApiServer", "LocalClient"]
