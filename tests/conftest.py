"""How hypothesis looks for counterexamples.

A run of all tests decides about a change, so it tries the same examples each time (``ci``, a
profile of hypothesis' own; no deadline for an example, either, since machines differ in speed).
Who looks for what nobody thought of takes
``make test PYTEST_ARGS="--hypothesis-profile=search tests/unit"``: other examples each time, and
more of them.
"""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("search", settings.get_profile("ci"), derandomize=False, max_examples=500)
settings.load_profile("ci")
