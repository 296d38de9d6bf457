"""What every user has asked of the API server, each kind of request once.

For those who write roles: what a role allows and nobody uses can be taken out of it, and what was
forbidden is there to be seen. One JSON object a line, at the first time a user does, or may not
do, a verb on a resource:

    {"user": "...", "verb": "list", "group": "", "resource": "pods", "namespace": "...",
     "allowed": true}
"""

from __future__ import annotations

import json
from pathlib import Path

from beamlit_operator.devcluster.apiserver.authorization import Attributes
from beamlit_operator.devcluster.apiserver.users import User

Use = tuple[str, str, str, str, str, bool]


class AccessLog:
    """Writes the lines; as many as there are different ones."""

    def __init__(self, path: Path) -> None:
        """``path`` is made anew."""
        self._path = path
        self._seen: set[Use] = set()
        path.write_text("")

    def note(self, user: User, attributes: Attributes, *, allowed: bool) -> None:
        """A request was let in, or not. A path that is no resource stands in place of one."""
        what = (attributes.group, attributes.path or attributes.kind, attributes.namespace)
        use = (user.name, attributes.verb, *what, allowed)
        if use in self._seen:
            return
        self._seen.add(use)
        names = ("user", "verb", "group", "resource", "namespace", "allowed")
        with self._path.open("a") as file:
            file.write(json.dumps(dict(zip(names, use, strict=True))) + "\n")
