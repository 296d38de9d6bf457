"""The CEL implementation without the command line that its package brings.

``import cel`` also imports ``cel.cli`` and with it a terminal toolkit: a third of a second that
every start of the cluster would pay. The extension module alone has all that is used here.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import cel
else:

    def _load() -> Any:
        package = importlib.util.find_spec("cel")
        if package is None:
            raise ImportError("the package common-expression-language is not installed")
        if "cel" in sys.modules:
            return importlib.import_module("cel")
        spec = PathFinder.find_spec("cel.cel", package.submodule_search_locations)
        if spec is None or spec.loader is None:
            return importlib.import_module("cel")
        # Known under its name, so that a later ``import cel`` shares it: it loads only once.
        module = sys.modules["cel.cel"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    cel = _load()

__all__ = ["cel"]
