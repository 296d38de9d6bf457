"""Brings one immutable revision of an origin into a directory.

| directory holds            | store holds            | what happens                             |
|----------------------------|------------------------|------------------------------------------|
| the revision, complete     | not asked              | nothing is fetched                       |
| the revision, all verified | not asked              | it is moved into place                   |
| nothing, parts or another  | the revision           | the missing is fetched, then all moved   |
| anything                   | another, and keeps one | ``Changed``; the directory stays as it is |

Without a revision, the one the store has now is taken.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from beamlit_operator.origins.errors import OriginError, OriginReason
from beamlit_operator.origins.fetching.progress import Progress
from beamlit_operator.origins.fetching.staging import Staging, stage
from beamlit_operator.origins.kinds import kind_of, look
from beamlit_operator.origins.listing import ResolvedOrigin, is_archive, resolved
from beamlit_operator.origins.pickles import (
    allowed_paths,
    is_pickle,
    needed_pickles,
    pickles,
    refusal,
)
from beamlit_operator.origins.ref import OriginRef, S3Ref

_IMMUTABLE = re.compile(r"[0-9a-f]{40}|sha256:[0-9a-f]{64}")
_LISTING_ATTEMPTS = 4
_LONGEST_WAIT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a fetch did.

    Attributes:
        revision: the immutable revision the directory holds now.
        files: how many files that is, 0 if it was there already.
        bytes: how many bytes came over the wire, or 0.
        seconds: how long it took.
    """

    revision: str
    files: int
    bytes: int
    seconds: float


def fetch(
    ref: OriginRef,
    directory: Path,
    *,
    revision: str | None = None,
    credentials: Mapping[str, str],
    report: Callable[[str], None],
    allow_pickle: bool = False,
    unpack: bool = False,
    shared: bool = False,
) -> Fetched:
    """Makes ``directory`` hold ``ref`` at ``revision``.

    Args:
        ref: the origin.
        directory: made if missing. Files in it that this function did not bring stay.
        revision: the immutable one that ``resolve`` gave; for a Hub also a branch or tag.
        credentials: as for ``resolve``.
        report: takes lines for people about the progress.
        allow_pickle: whether files that can run code when loaded are fetched (:mod:`.pickles`).
        unpack: whether archives are unpacked where they lie (:mod:`.fetching.archives`).
        shared: ``directory`` is a folder of a cache (:mod:`.fetching.cache`).

    Raises:
        OriginError: every failure. Nothing was published then.
    """
    started = time.monotonic()
    if revision:
        ref = ref.at(revision)
    listing: ResolvedOrigin | None = None
    if not revision or not _IMMUTABLE.fullmatch(revision):
        listing = _listing(ref, credentials)
        if revision and not ref.keeps_revisions:
            raise _changed(ref, revision, listing)
        revision = listing.revision
    holds = _identity(ref, revision, allow_pickle=allow_pickle, unpack=unpack)
    with stage(directory, holds, shared=shared, report=report) as staging:
        if staging.is_published() or (staging.finish() and staging.is_published()):
            return Fetched(revision, 0, 0, time.monotonic() - started)
        listing = listing or _listing(ref, credentials)
        if listing.revision != revision:
            raise _changed(ref, revision, listing)
        wanted = listing
        layered = any(file.packed is not None for file in wanted.files)
        if not allow_pickle:
            wanted = _without_pickles(ref, wanted, unpack=unpack or layered)
        size = wanted.bytes
        _bring(ref.at(revision), wanted, staging, credentials=credentials, report=report)
        if layered:
            wanted = _laid(ref, wanted, staging, report=report)
        if unpack:
            wanted = _unpacked(ref, wanted, staging, report=report)
        if (layered or unpack) and not allow_pickle:
            left_out = pickles(file.path for file in listing.files)
            wanted = _without_pickles(ref, wanted, left_out=left_out)
        if not allow_pickle:
            _look_into(ref, wanted, staging)
        staging.publish(wanted)
    return Fetched(revision, len(wanted.files), size, time.monotonic() - started)


def _bring(
    ref: OriginRef,
    listing: ResolvedOrigin,
    staging: Staging,
    *,
    credentials: Mapping[str, str],
    report: Callable[[str], None],
) -> None:
    missing = staging.prepare(listing)
    with Progress(listing.bytes, report, files=len(listing.files)) as progress:
        progress.add(listing.bytes - sum(file.size for file in missing))
        progress.completed(len(listing.files) - len(missing))
        carrier = kind_of(ref).carrier()
        carrier(ref, credentials, staging=staging, progress=progress).run(missing)


def _laid(
    ref: OriginRef, listing: ResolvedOrigin, staging: Staging, *, report: Callable[[str], None]
) -> ResolvedOrigin:
    """The listing with what is there when its layers lie over each other instead of them."""
    from beamlit_operator.origins.fetching.laying import lay

    layers = [file for file in listing.files if file.packed is not None]
    others = [file for file in listing.files if file.packed is None]
    found = lay(
        layers,
        found=staging.fetched,
        into=staging.work / "layers",
        place=ref.place,
        report=report,
    )
    # Looked at before anything is moved: no name may be there twice.
    result = resolved(listing.revision, [*others, *(each.file for each in found)], place=ref.place)
    for file in layers:
        staging.fetched(file).unlink()
    for each in found:
        staging.complete(each.file, each.where)
    return result


def _unpacked(
    ref: OriginRef, listing: ResolvedOrigin, staging: Staging, *, report: Callable[[str], None]
) -> ResolvedOrigin:
    """The listing with what the archives hold instead of them. Killed meanwhile, it starts again:
    the archives stay until all of them are unpacked."""
    from beamlit_operator.origins.fetching.archives import Unpacker

    archives = [file for file in listing.files if is_archive(file.path)]
    others = [file for file in listing.files if not is_archive(file.path)]
    folder = staging.work / "unpacked"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    unpacker = Unpacker(folder, taken=[file.path for file in others], place=ref.place)
    for file in archives:
        report(f"unpacking {file.path}")
        unpacker.unpack(file.path, staging.fetched(file))
    found = unpacker.files()
    for file in archives:
        staging.fetched(file).unlink()
    for file in found:
        staging.complete(file, folder / file.path)
    return resolved(listing.revision, [*others, *found], place=ref.place)


def _without_pickles(
    ref: OriginRef,
    listing: ResolvedOrigin,
    *,
    unpack: bool = False,
    left_out: Sequence[str] = (),
) -> ResolvedOrigin:
    """The listing without the files that are not allowed.

    Args:
        ref: the origin.
        listing: what it holds.
        unpack: whether archives in it are still to be unpacked.
        left_out: pickles that are not in the listing any more.

    Raises:
        OriginError: ``PickleNotAllowed``, if the model cannot do without them.
    """
    paths = [file.path for file in listing.files]
    needed = needed_pickles([*paths, *left_out], unpack=unpack)
    if needed:
        raise OriginError(OriginReason.PICKLE_NOT_ALLOWED, f"{ref.place}: {refusal(needed)}")
    kept = set(allowed_paths(paths, allow_pickle=False))
    files = tuple(file for file in listing.files if file.path in kept)
    return replace(listing, files=files, bytes=sum(file.size for file in files))


def _look_into(ref: OriginRef, listing: ResolvedOrigin, staging: Staging) -> None:
    """Names can lie: refuses what is a pickle by its content."""
    for file in listing.files:
        if is_pickle(staging.fetched(file)):
            raise OriginError(
                OriginReason.PICKLE_NOT_ALLOWED, f"{ref.place}: {refusal([file.path])}"
            )


def _listing(ref: OriginRef, credentials: Mapping[str, str]) -> ResolvedOrigin:
    """Asks the store, again for a while if it does not answer well."""
    attempt = 1
    while True:
        try:
            return look(ref, credentials)
        except OriginError as problem:
            if problem.stalled or attempt == _LISTING_ATTEMPTS:
                raise
            seconds = 2.0**attempt
            if problem.reason is OriginReason.RATE_LIMITED:
                seconds = problem.retry_after_seconds
            time.sleep(min(seconds, _LONGEST_WAIT_SECONDS))
            attempt += 1


def _identity(ref: OriginRef, revision: str, *, allow_pickle: bool, unpack: bool) -> str:
    """What the directory holds when the fetch is done, as one string."""
    left_out = "" if allow_pickle else " without pickles"
    return f"{ref.identity(revision)}{left_out}{' unpacked' if unpack else ''}"


def _changed(ref: OriginRef, revision: str, listing: ResolvedOrigin) -> OriginError:
    if isinstance(ref, S3Ref) and ref.as_of is not None:
        return OriginError(
            OriginReason.CHANGED,
            f"{ref.place} as of {ref.as_of} is {listing.revision[:19]} now, not {revision[:19]}: "
            "versions of then were removed, such as by a lifecycle rule; let the operator resolve "
            "the Model again, or keep versions for longer",
        )
    return OriginError(
        OriginReason.CHANGED,
        f"{ref.place} is at {listing.revision[:19]} now, not at {revision[:19]}: it changed"
        " after it was resolved; put the files back, or let the operator resolve the Model again",
    )
