"""The workspaces' caches put together: claims, what fetches ahead, what tidies, and what follows.

| what happened                         | what follows                                           |
|---------------------------------------|--------------------------------------------------------|
| a claim came, went or is about to go  | its workspace's Models and deployments are looked at   |
| a pod of ours ended                   | the next may start; its Model is looked at             |
| a revision came                       | what it uses is kept                                   |
| a revision or a prefetched folder went| its workspace may be tidied                            |
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime

from beamlit_operator.controllers.ahead import Ahead
from beamlit_operator.controllers.caches import Claims, Errands
from beamlit_operator.controllers.events import Announcer
from beamlit_operator.controllers.indexes import Indexes
from beamlit_operator.controllers.keys import Key, Kind, Workspace
from beamlit_operator.controllers.options import Options
from beamlit_operator.controllers.starts import Starts
from beamlit_operator.controllers.tidying import Tidying, folder_kept
from beamlit_operator.kube import Json, KubeClient, Reflector


class Caching:
    """What the operator does about caches. Without a claim's name in the options: nothing."""

    def __init__(
        self,
        client: KubeClient,
        *,
        options: Options,
        namespaces: Sequence[str | None],
        indexes: Indexes,
        starts: Starts,
        announcer: Announcer,
        enqueue: Callable[[Key], None],
        later: Callable[[Key], None],
        on_end: Callable[[str, str], None],
        clock: Callable[[], datetime],
    ) -> None:
        """``enqueue`` and ``later`` have objects looked at; ``on_end`` hears what pods were for and
        how they ended."""
        self._indexes = indexes
        self._enqueue = enqueue
        self._later = later
        self._others: set[str] = set()
        self.claims = Claims(
            client, options.cache_claim, namespaces=namespaces, on_change=self._claim_changed
        )
        self.errands = Errands(
            client,
            namespaces=namespaces if options.cache_claim else (),
            on_change=self._errand_changed,
            on_end=on_end,
        )
        self.ahead = Ahead(self.claims, self.errands, starts, enqueue=enqueue)
        self.tidying = Tidying(
            client,
            claims=self.claims,
            errands=self.errands,
            announcer=announcer,
            image=options.image,
            limit=options.cache_limit,
            pause=options.cache_tidy_pause,
            clock=clock,
        )

    @property
    def reflectors(self) -> tuple[Reflector, ...]:
        """What is read of the cluster."""
        return (*self.claims.reflectors, *self.errands.reflectors)

    def model_changed(self, workspace: str, old: Json | None, new: Json | None) -> None:
        """A Model came, changed or went."""
        kept = folder_kept(old)
        if kept and folder_kept(new) != kept:
            self.tidying.went(workspace)

    def workload_changed(self, workload: Json, *, there: bool) -> None:
        """A revision's Deployment came, changed or went."""
        workspace = workload["metadata"].get("namespace", "")
        if not there:
            self.tidying.went(workspace)
        elif workload["metadata"].get("generation", 0) <= 1:
            self.tidying.came(workspace)

    def _claim_changed(self, workspace: str) -> None:
        """Pods of a workspace are made in another way from now on, and Models fetched ahead."""
        self.tidying.claim_changed(workspace)
        if not self._others:
            # All that a listing tells of are looked for once.
            asyncio.get_running_loop().call_soon(self._use_claims)
        self._others.add(workspace)

    def _use_claims(self) -> None:
        for key in self._indexes.all_keys():
            concerned = key.kind in (Kind.MODEL_DEPLOYMENT, Kind.MODEL)
            if concerned and key.workspace in self._others:
                self._later(key)
        self._others.clear()

    def _errand_changed(self, pod: Json) -> None:
        metadata = pod["metadata"]
        workspace = Workspace(metadata.get("namespace", ""))
        self.tidying.pod_changed()
        self.ahead.ended(workspace)
        for owner in metadata.get("ownerReferences") or ():
            if owner.get("kind") == Kind.MODEL:
                self._enqueue(Key(Kind.MODEL, workspace, owner["name"]))
