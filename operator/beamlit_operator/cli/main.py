"""The entry point of ``beamlit``.

``beamlit fetch`` runs in the init container of every cold start, so it is told apart before
anything that the other commands need is imported; so is ``beamlit cache``, which pods run too.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status: 0 done, 1 failed or "no", 2 misuse."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["fetch"]:
        from beamlit_operator.origins.__main__ import main as fetch

        return fetch(given[1:], prog="beamlit fetch")
    if given[:1] == ["cache"]:
        from beamlit_operator.origins.cache_command import main as cache

        return cache(given[1:], prog="beamlit cache")
    from beamlit_operator.cli.app import run

    return run(given)


if __name__ == "__main__":
    sys.exit(main())
