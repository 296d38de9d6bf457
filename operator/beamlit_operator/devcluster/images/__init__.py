"""Images of the embedded cluster: names mapped to programs of this machine.

A container image cannot run without a container engine, so a small table says which local program
stands for which image. "Pulling" one creates the isolated virtual environment it needs, once.
"""

from beamlit_operator.devcluster.images.store import ImageStore, PullError
from beamlit_operator.devcluster.images.table import Image, ImageTable, UnknownImageError

__all__ = ["Image", "ImageStore", "ImageTable", "PullError", "UnknownImageError"]
