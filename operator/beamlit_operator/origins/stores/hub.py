"""A Hugging Face Hub: list a repository at a commit, judge errors, bring single files.

The library does the talking (redirects, large-file storage, Xet, resuming); here stands what its
errors mean and that it is given the token explicitly, never one it finds on the machine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from huggingface_hub import (
    HfApi,
    get_hf_file_metadata,
    get_session,
    hf_hub_url,
    is_offline_mode,
)
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # exported lazily
    build_hf_headers,
    filter_repo_objects,
    hf_raise_for_status,
)

from beamlit_operator.origins.errors import OriginError, OriginReason, one_line
from beamlit_operator.origins.listing import MAX_READ_BYTES, OriginFile, ResolvedOrigin, resolved
from beamlit_operator.origins.ref import DEFAULT_HUB_ENDPOINT, HubRef
from beamlit_operator.origins.stores.answers import in_time
from beamlit_operator.origins.stores.hub_session import ANSWER_TIMEOUT_SECONDS, asking, whole
from beamlit_operator.origins.stores.hub_xet import XetFile
from beamlit_operator.origins.stores.reach import why

TOKEN = "token"  # noqa: S105 - the name of a field

# Above this the Hub's own summary of a repository is not complete; the library says so too.
_SUMMARY_FILES = 50_000

# All that its HTTP library raises: connection refused, timeouts, broken answers. The library moved
# from httpx to httpx2; the base class of its own error is the one name that holds for both.
_TRANSPORT_ERROR: type[Exception] = HfHubHTTPError.__bases__[0]

_COMMIT = re.compile(r"[0-9a-f]{40}")
_RATE_LIMIT_RESET = re.compile(r"\bt=(\d+)")


def look(ref: HubRef, credentials: Mapping[str, str]) -> ResolvedOrigin:
    """Resolves and lists ``ref``: see :func:`beamlit_operator.origins.resolve.resolve`."""
    _check_online(ref)
    api = HfApi(endpoint=endpoint_of(ref), token=credentials.get(TOKEN) or False)
    try:
        with asking(credentials):
            commit, files = _listed(api, ref)
    except OriginError:
        raise
    except Exception as error:
        raise judge(error, ref, credentials) from None
    wanted = set(
        filter_repo_objects(
            list(files),
            allow_patterns=list(ref.allow_patterns) or None,
            ignore_patterns=list(ref.ignore_patterns) or None,
        )
    )
    if not wanted:
        raise _nothing(ref, sorted(files))
    return resolved(
        commit,
        [
            OriginFile(
                path, size or 0, f"sha256:{sha256}" if sha256 else f"gitsha1:{blob_id}", path
            )
            for path, (size, sha256, blob_id) in files.items()
            if path in wanted
        ],
        place=ref.place,
    )


_Listed = dict[str, tuple[int | None, str | None, str | None]]
"""Size, SHA-256 and git's digest by path."""


def _listed(api: HfApi, ref: HubRef) -> tuple[str, _Listed]:
    """The commit that the revision means, and its files."""
    info = api.model_info(
        ref.repo,
        revision=ref.revision,
        files_metadata=True,
        timeout=ANSWER_TIMEOUT_SECONDS,
    )
    if info.gated:
        # A gated repository shows its listing to everybody, and its files to few.
        api.auth_check(ref.repo)
    if not _COMMIT.fullmatch(str(info.sha)):
        # Else what is pinned would be something that moves.
        raise OriginError(
            OriginReason.UNREACHABLE, f"{ref.place}: the Hub named no commit: check endpoint"
        )
    files: _Listed = {
        sibling.rfilename: (
            sibling.size,
            sibling.lfs.sha256 if sibling.lfs else None,
            sibling.blob_id,
        )
        for sibling in info.siblings or []
    }
    complete = all(size is not None for size, _, _ in files.values())
    if not complete or len(files) > _SUMMARY_FILES:
        tree = api.list_repo_tree(ref.repo, recursive=True, revision=info.sha)
        files = {
            entry.path: (entry.size, entry.lfs.sha256 if entry.lfs else None, entry.blob_id)
            for entry in in_time(tree)
            if isinstance(entry, RepoFile)
        }
    if not all(isinstance(path, str) for path in files):
        raise TypeError
    return str(info.sha), files


def _nothing(ref: HubRef, there: list[str]) -> OriginError:
    """No file is left: what was asked for, and what is there instead."""
    if not there:
        text = f"{ref.place} holds no file: check the repository and the revision"
    else:
        named = [
            f"{field} ({', '.join(patterns)})"
            for field, patterns in (
                ("allowPatterns", ref.allow_patterns),
                ("ignorePatterns", ref.ignore_patterns),
            )
            if patterns
        ]
        text = (
            f"{ref.place} holds {len(there)} files, and {' and '.join(named)} let none of them"
            f" through: correct the patterns; the files are {', '.join(there[:5])}"
            f"{', ...' if len(there) > 5 else ''}"
        )
    return OriginError(OriginReason.NO_OBJECTS, one_line(text))


def _check_online(ref: HubRef) -> None:
    if is_offline_mode():
        raise OriginError(
            OriginReason.INVALID_REFERENCE,
            f"{ref.place} is not asked, because HF_HUB_OFFLINE is set: unset it, or name a commit"
            " that the directory holds already",
        )


@dataclass(frozen=True, slots=True)
class Located:
    """Where the content of a file is.

    Attributes:
        url: for plain HTTP; it may be signed, and good for a while only.
        is_hub: the Hub's own host, which may be told the token.
        xet: the file in Xet's storage, if it is there.
    """

    url: str
    is_hub: bool
    xet: XetFile | None = None


def url_of(ref: HubRef, file: OriginFile) -> str:
    """A file's address at the Hub."""
    return hf_hub_url(ref.repo, file.source, revision=ref.revision, endpoint=endpoint_of(ref))


def locate(ref: HubRef, credentials: Mapping[str, str], file: OriginFile) -> Located:
    """Asks the Hub where a large file's content is.

    Raises:
        OriginError: every failure.
    """
    _check_online(ref)
    try:
        with asking(credentials):
            found = get_hf_file_metadata(
                url_of(ref, file),
                token=credentials.get(TOKEN) or False,
                timeout=ANSWER_TIMEOUT_SECONDS,
                endpoint=endpoint_of(ref),
            )
    except OriginError:
        raise
    except Exception as error:
        raise judge(error, ref, credentials) from None
    xet = None
    data = found.xet_file_data
    if data is not None and is_same_place(data.refresh_route, endpoint_of(ref)):
        xet = XetFile(data.file_hash, file.size, data.refresh_route)
    url = urljoin(url_of(ref, file), found.location)
    return Located(url, is_same_place(url, endpoint_of(ref)), xet)


def is_same_place(url: str, other: str) -> bool:
    """Whether two urls are of one scheme, host and port."""
    one, two = urlsplit(url), urlsplit(other)
    return (one.scheme, one.netloc.lower()) == (two.scheme, two.netloc.lower())


def read(
    ref: HubRef, credentials: Mapping[str, str], file: OriginFile, start: int, length: int
) -> bytes:
    """See :func:`beamlit_operator.origins.kinds.read`. What the Hub redirects to (its storage for
    large files) is asked by the library, which sends the token to the Hub only."""
    token = credentials.get(TOKEN) or False
    url = url_of(ref, file)
    # Not compressed: a range is of the file's own bytes.
    own = {"Range": f"bytes={start}-{start + length - 1}", "Accept-Encoding": "identity"}
    try:
        headers = build_hf_headers(token=token) | own
        with asking(credentials), get_session().stream("GET", url, headers=headers) as answer:
            # All of an error: it is what the library's judgement is made of.
            hf_raise_for_status(whole(answer) if answer.is_error else answer)
            # A server that knows no ranges sends the file from its beginning.
            skip = 0 if answer.status_code == 206 else start
            if skip + length > MAX_READ_BYTES:
                raise OriginError(
                    OriginReason.UNREACHABLE,
                    f"{ref.place}: the endpoint sends no parts of files: check endpoint",
                )
            found = bytearray()
            for chunk in answer.iter_bytes():
                found += chunk
                if len(found) >= skip + length:
                    break
    except OriginError:
        raise
    except Exception as error:
        raise judge(error, ref, credentials) from None
    part = bytes(found[skip : skip + length])
    if len(part) != length:
        raise OriginError(
            OriginReason.CORRUPT, f"{file.path!r} of {ref.place} is shorter than the Hub lists it"
        )
    return part


def judge(error: Exception, ref: HubRef, credentials: Mapping[str, str]) -> OriginError:
    """What ``error`` means for a person. Errors that are not the Hub's are raised again."""
    token = credentials.get(TOKEN)
    if isinstance(error, HFValidationError):
        return OriginError(OriginReason.INVALID_REFERENCE, f"{ref.place} is not possible")
    if isinstance(error, HfHubHTTPError):
        return _judge_answer(error, ref, token)
    cause: BaseException | None = error
    while cause is not None:  # "local entry not found" wraps what really happened
        if isinstance(cause, HfHubHTTPError):
            return _judge_answer(cause, ref, token)
        if isinstance(cause, _TRANSPORT_ERROR | ConnectionError | TimeoutError):
            return OriginError(
                OriginReason.UNREACHABLE,
                f"{ref.place} cannot be reached: {why(error)}",
            )
        cause = cause.__cause__
    if isinstance(error, OSError) and error.errno is None:
        # Not the disk's: the library's own, for answers that lack a header or end early.
        text = one_line(str(error), [token or ""])
        return OriginError(
            OriginReason.UNREACHABLE, f"{ref.place} did not answer as a Hub does: {text}"
        )
    # An answer that is not the Hub's JSON, or has not what the library takes out of it.
    if isinstance(error, ValueError | RecursionError | LookupError | TypeError | AttributeError):
        return OriginError(
            OriginReason.UNREACHABLE,
            f"{ref.place}: the endpoint does not answer like a Hub: check endpoint",
        )
    raise error


def _judge_answer(error: HfHubHTTPError, ref: HubRef, token: str | None) -> OriginError:
    status = error.response.status_code
    if isinstance(error, GatedRepoError):  # before its base class: repository not found
        how = "" if token else ", and set a token of the account that gets it"
        return OriginError(
            OriginReason.GATED, f"{ref.repo} is gated: ask for access at {ref.url}{how}"
        )
    # A token the Hub does not know gets 401; a valid one that may not see the repository gets 404.
    if status == 401 and token:
        return OriginError(
            OriginReason.TOKEN_INVALID,
            f"the Hub does not accept the token for {ref.place}: correct it in the Secret",
        )
    if isinstance(error, RevisionNotFoundError):
        return OriginError(
            OriginReason.REVISION_UNKNOWN,
            f"{ref.repo} has no revision {ref.revision!r}: name an existing branch, tag or commit",
        )
    if isinstance(error, RepositoryNotFoundError) or status in (401, 404):
        how = "allow the token to read it" if token else "set a token if it is private"
        return OriginError(
            OriginReason.REPO_NOT_FOUND_OR_NO_ACCESS,
            f"{ref.place} does not exist or is hidden: check the name, and {how}",
        )
    if isinstance(error, DisabledRepoError) or status == 403:
        return OriginError(
            OriginReason.ACCESS_DENIED,
            f"the Hub refuses access to {ref.place}: check the token's rights at {ref.url}",
        )
    if status == 429:
        return OriginError(
            OriginReason.RATE_LIMITED,
            f"the Hub's rate limit is reached for {ref.place}: it is tried again later",
            retry_after_seconds=retry_after(error.response.headers),
        )
    text = one_line(error.server_message or "", [token or ""])
    return OriginError(
        OriginReason.UNREACHABLE, f"the Hub answered {status} for {ref.place}: {text}".rstrip(": ")
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The Hub's own delay: Retry-After, or the IETF draft's ``RateLimit: "api";r=0;t=55``."""
    value = headers.get("retry-after", "")
    if value.isascii() and value.isdigit():
        return float(value)
    match = _RATE_LIMIT_RESET.search(headers.get("ratelimit", ""))
    return float(match.group(1)) if match else None


def endpoint_of(ref: HubRef) -> str:
    """The Hub's address, without a slash at its end."""
    # Never None: the library would then take HF_ENDPOINT of this process.
    return (ref.endpoint or DEFAULT_HUB_ENDPOINT).rstrip("/")
