"""``python -m beamlit_operator.origins URI DIRECTORY``: what ``beamlit fetch`` runs.

Exit codes: 0 the directory holds the revision; 1 it could not be fetched; 2 wrong usage;
130 interrupted; 143 told to end.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from beamlit_operator.origins.claimref import ClaimRef
from beamlit_operator.origins.errors import OriginError
from beamlit_operator.origins.fetch import Fetched, fetch
from beamlit_operator.origins.fetching.staging import HOME
from beamlit_operator.origins.fetching.terminal import Bar, somebody_looks
from beamlit_operator.origins.kinds import kind_of, kind_of_uri, parse_uri
from beamlit_operator.origins.ociref import OciRef
from beamlit_operator.origins.ref import HubRef, OriginRef
from beamlit_operator.origins.sizes import mebibytes

_ENVIRONMENT = """\
environment:
  s3://  AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN; or AWS_ROLE_ARN,
         AWS_WEB_IDENTITY_TOKEN_FILE, AWS_ROLE_SESSION_NAME, AWS_ENDPOINT_URL_STS; or
         BEAMLIT_NODE_CREDENTIALS=true (none: anonymous); AWS_ENDPOINT_URL, AWS_REGION
  hf://  HF_TOKEN (none: anonymous), HF_ENDPOINT
  https  BEAMLIT_HTTP_TOKEN, or BEAMLIT_HTTP_USERNAME and BEAMLIT_HTTP_PASSWORD (none: anonymous)
  oci:// BEAMLIT_DOCKER_CONFIG: what a config.json of container engines says (none: anonymous)
  all    HTTPS_PROXY, HTTP_PROXY, NO_PROXY; BEAMLIT_CA_FILE: authorities trusted besides the public;
         BEAMLIT_ORIGIN_CA_FILE: the same, for this origin
"""


def main(arguments: Sequence[str] | None = None, *, prog: str = "beamlit fetch") -> int:
    """Runs the command and returns its exit code; lines for people go to stderr."""
    try:
        given = _parser(prog).parse_args(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    try:
        ref = _ref(given, os.environ)
    except OriginError as problem:
        _say(f"{prog}: {problem.message}")
        return 2
    if os.environ.get("BEAMLIT_CA_FILE"):
        # Half a second to import, which a caller would wait for in every cold start.
        from beamlit_operator.kube.trust import trust_own_authorities

        if warning := trust_own_authorities(os.environ):
            _say(f"{prog}: {warning}")
    try:
        with _term_interrupts():
            if isinstance(ref, ClaimRef) or (isinstance(ref, OciRef) and ref.mounted):
                return _check(ref, given, prog=prog)
            return _fetch(ref, given, prog=prog)
    except KeyboardInterrupt as interrupt:
        _say(f"{prog}: interrupted; the next call goes on where this one was")
        # Not by return: threads that wait for a store cannot be told to stop, and would be awaited.
        os._exit(128 + (interrupt.number if isinstance(interrupt, _Told) else signal.SIGINT))


class _Told(KeyboardInterrupt):
    """A signal that asks for the end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def _term_interrupts() -> Iterator[None]:
    """SIGTERM ends the block like Ctrl-C. The first process of a container gets no signal that it
    does not handle (pid_namespaces(7)): it would fetch on for the whole grace period of its pod."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def tell(number: int, _frame: FrameType | None) -> None:
        raise _Told(number)

    before = signal.signal(signal.SIGTERM, tell)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check(ref: ClaimRef | OciRef, given: argparse.Namespace, *, prog: str) -> int:
    from beamlit_operator.origins.stores.claim import check

    try:
        found = check(ref, given.directory, allow_pickle=given.allow_pickle)
    except OriginError as problem:
        _say(f"{prog}: {problem.reason}: {problem.message}")
        return 1
    _say(f"{ref.place} has {found.files} files, {found.bytes} bytes: nothing to fetch")
    return 0


def _fetch(ref: OriginRef, given: argparse.Namespace, *, prog: str) -> int:
    directory: Path = given.directory
    if isinstance(ref, HubRef):
        # The Hub's library wants a home to write to; a container's root is often read-only. It
        # reads this when it is imported.
        os.environ.setdefault("HF_HOME", str(directory / HOME))
    try:
        fetched = fetch(
            ref,
            directory,
            revision=given.revision,
            allow_pickle=given.allow_pickle,
            unpack=given.unpack,
            shared=given.shared,
            credentials=kind_of(ref).credentials(os.environ),
            report=_reporter(ref),
        )
    except OriginError as problem:
        _say(f"{prog}: {problem.reason}: {problem.message}")
        return 1
    _say(_summary(ref, directory, fetched))
    return 0


def _reporter(ref: OriginRef) -> Callable[[str], None]:
    if somebody_looks(os.environ):
        return Bar(ref.place)
    return lambda line: _say(f"fetching {ref.place}: {line}")


def _summary(ref: OriginRef, directory: Path, fetched: Fetched) -> str:
    if not fetched.files:
        return f"{directory} holds {ref.place} at {fetched.revision} already: nothing to fetch"
    files = "1 file" if fetched.files == 1 else f"{fetched.files} files"
    size = f" ({mebibytes(fetched.bytes)})" if fetched.bytes >= 2**20 else ""
    return (
        f"fetched {ref.place} at {fetched.revision} into {directory}: {files},"
        f" {fetched.bytes} bytes{size} in {fetched.seconds:.1f} seconds"
    )


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Fetch a model's files, verified and all at once.",
        epilog=_ENVIRONMENT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "uri",
        help="s3://BUCKET/PREFIX, hf://ORGANISATION/NAME[@REVISION], https://HOST/FILE or"
        " oci://REGISTRY/NAME:TAG",
    )
    parser.add_argument("directory", type=Path, help="where the files go")
    parser.add_argument(
        "--revision", help="the immutable revision to fetch: commit, or sha256:... of S3 and https"
    )
    parser.add_argument("--endpoint", help="URL of the store; default: from the environment")
    parser.add_argument("--region", help="region of the bucket; default: from the environment")
    parser.add_argument(
        "--addressing-style",
        choices=("auto", "path", "virtual"),
        default="auto",
        help="where the bucket stands in requests: the path or the host name (s3://)",
    )
    parser.add_argument("--version-id", help="one version of the one object that URI names (s3://)")
    parser.add_argument(
        "--as-of",
        metavar="TIME",
        help="the versions that were the latest then, as 2026-01-31T12:00:00Z (s3:// buckets that "
        "keep versions)",
    )
    parser.add_argument(
        "--allow-pattern",
        action="append",
        default=[],
        metavar="GLOB",
        help="only these files (hf://; repeatable)",
    )
    parser.add_argument(
        "--ignore-pattern",
        action="append",
        default=[],
        metavar="GLOB",
        help="not these files (hf://; repeatable)",
    )
    parser.add_argument("--sha256", metavar="HEX", help="digest of the file (https://)")
    parser.add_argument(
        "--path", help="where the file goes; default: the url's last part (https://)"
    )
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        metavar='"HEX URL [PATH]"',
        help="one more file of the model (https://; repeatable)",
    )
    parser.add_argument(
        "--mounted",
        action="store_true",
        help="the image is mounted at DIRECTORY: only look whether it may be served (oci://)",
    )
    parser.add_argument(
        "--unpack",
        action="store_true",
        help="unpack *.tar, *.tar.gz, *.tgz and *.zip where they lie, and remove them",
    )
    parser.add_argument(
        "--allow-pickle",
        action="store_true",
        help="also files that can run code when loaded: only from an origin that you trust",
    )
    parser.add_argument(
        "--shared",
        action="store_true",
        help="DIRECTORY is a folder of a cache: others use it too, and it outlives this machine",
    )
    return parser


def reference_of(arguments: Sequence[str], environment: Mapping[str, str]) -> OriginRef:
    """What a call with these arguments fetches.

    Raises:
        OriginError: it cannot be right.
    """
    return _ref(_parser("beamlit fetch").parse_args(arguments), environment)


def _ref(given: argparse.Namespace, environment: Mapping[str, str]) -> OriginRef:
    return parse_uri(
        given.uri,
        endpoint=given.endpoint or environment.get(kind_of_uri(given.uri).endpoint_variable),
        region=given.region or environment.get("AWS_REGION"),
        addressing_style=given.addressing_style,
        version_id=given.version_id,
        as_of=given.as_of,
        allow_patterns=tuple(given.allow_pattern),
        ignore_patterns=tuple(given.ignore_pattern),
        sha256=given.sha256,
        path=given.path,
        mounted=given.mounted,
        also=tuple(given.also),
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
