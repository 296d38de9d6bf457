"""What the files of a revision say about the model: the few small reads, and their sum as facts.

For the operator, once for each revision of an origin. Read are the small files that tell what the
model is (`configuration`) and the beginnings of its weights (`headers`), never the weights:

| file                                     | how much                                            |
|------------------------------------------|-----------------------------------------------------|
| config.json and its like                 | all of it, up to 1 MiB                              |
| up to four safetensors files             | 8 bytes and the header, up to 4 MiB                 |
| more of them                             | the first one's; the others count as of the same    |
|                                          | types, and all by their sizes                       |
| GGUF                                     | 256 KiB                                             |
| XGBoost, LightGBM                        | 512 bytes                                           |
| anything else                            | nothing: its name and size                          |
| nothing of all this is there             | one byte of the smallest file, to see that it may   |
|                                          | be read: who may list a bucket need not be allowed  |

Bounded so: at most 15 reads, 4 at a time, :data:`TIMEOUT_SECONDS` for all. What is not known by
then stays unknown, and the facts say why. Nothing in a file can make this fail.

The Hub's own summary of a repository is not used: it would save one read of those, S3 has none, and
it is what the Hub made of the files, which are here to be asked themselves.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from beamlit_operator.api.facts import ModelFacts
from beamlit_operator.origins import kinds
from beamlit_operator.origins.errors import OriginError, OriginReason
from beamlit_operator.origins.inspection import configuration, headers
from beamlit_operator.origins.inspection.weights import (
    GGUF,
    SAFETENSORS,
    Weights,
    by_depth,
    weights,
)
from beamlit_operator.origins.listing import OriginFile, ResolvedOrigin
from beamlit_operator.origins.ref import OriginRef
from beamlit_operator.origins.resolve import in_thread
from beamlit_operator.origins.waiting import Waiter, Waiting

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 15.0
"""For all reads of one look."""

SMALL_FILE = 2**20
HEADER_START = 2**17
TREES_START = 512
SHARDS = 4
AT_ONCE = 4

Read = Callable[[OriginFile, int, int], bytes]
"""Some bytes of a file: from where, and how many; fewer at its end."""

_READS = Waiting(of_place=AT_ONCE, of_asker=16, of_all=128)


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found.

    Attributes:
        facts: what the files say.
        again: whether another look may find more: the store did not let all be read.
        denied: the refusal, if whoever asks may read none of the files that were asked for. Then
            none can be fetched either.
    """

    facts: ModelFacts
    again: bool = False
    denied: OriginError | None = None


async def inspect(
    ref: OriginRef, credentials: Mapping[str, str], listing: ResolvedOrigin
) -> Inspection:
    """Reads what the listed files say. Never fails: what is not known is left out.

    Args:
        ref: the origin.
        credentials: as for ``resolve``.
        listing: what it holds, at an immutable revision.
    """
    fixed = ref.at(listing.revision)
    read = functools.partial(kinds.read, fixed, credentials)
    try:
        return await in_thread(ref, lambda: inspected(listing.files, read, place=ref.place))
    except OriginError as error:
        return Inspection(configuration.facts_of({}, problems=[error.message]), again=True)


def inspected(
    files: Sequence[OriginFile],
    read: Read,
    *,
    place: str = "",
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> Inspection:
    """The same for callers that may block, with any way to read. ``place`` is what is read."""
    loaded = weights(files)
    wanted = [*_small(files), *_beginnings(loaded)]
    until = time.monotonic() + timeout_seconds
    reads = _Reads(read, place=place, until=until)
    found = reads.all(wanted)
    more = [
        _Part(file, HEADER_START, length + 8 - HEADER_START)
        for file, start in found.items()
        if loaded is not None
        and loaded.format == SAFETENSORS
        and file in loaded.files
        and (length := _rest(start)) > HEADER_START - 8
    ]
    rests = reads.all(more)
    for part in more:
        if part.file in rests:
            found[part.file] += rests[part.file]
        else:
            del found[part.file]
    told: configuration.Fields = {}
    problems = list(reads.problems)
    for file in sorted(found, key=lambda each: each.path):
        if loaded is None or file not in loaded.files:
            _tell(told, problems, file, functools.partial(_of_small, file, found[file]))
    if loaded is not None:
        _of_weights(loaded, found, told, problems)
    _of_names(files, told)
    facts = configuration.facts_of(told, problems=problems)
    if problems:
        log.info("the files of a model are not fully understood: %s", facts.incomplete)
    denied = reads.denied if wanted else _probe(files, read, place=place, until=until)
    return Inspection(facts, again=bool(reads.problems), denied=denied)


def _probe(
    files: Sequence[OriginFile], read: Read, *, place: str, until: float
) -> OriginError | None:
    """The refusal, if the smallest file may not be read. Other failures say nothing: the fetch
    tries again."""
    content = [file for file in files if file.size]
    if not content:
        return None
    reads = _Reads(read, place=place, until=until)
    reads.all([_Part(min(content, key=lambda file: (file.size, file.path)), 0, 1)])
    return reads.denied


@dataclass(frozen=True, slots=True)
class _Part:
    file: OriginFile
    start: int
    length: int


_ROOT: Mapping[str, Callable[[Mapping[str, object]], configuration.Fields]] = {
    "config.json": configuration.of_config,
    "adapter_config.json": configuration.of_adapter,
    "model_index.json": configuration.of_pipeline,
    "sentence_bert_config.json": configuration.of_sentences,
}
"""Files that count at the root only."""

_ANYWHERE = ("model-settings.json", "MLmodel", "config.pbtxt")
"""Files of which the shallowest counts."""


def _small(files: Sequence[OriginFile]) -> list[_Part]:
    found = [file for file in files if file.path in _ROOT]
    found += [first[0] for name in _ANYWHERE if (first := by_depth(files, name))]
    return [_Part(file, 0, SMALL_FILE + 1) for file in found]


def _beginnings(loaded: Weights | None) -> list[_Part]:
    if loaded is None:
        return []
    match loaded.format:
        case "safetensors":
            few = len(loaded.files) <= SHARDS
            return [_Part(f, 0, HEADER_START) for f in (loaded.files if few else loaded.files[:1])]
        case "gguf":
            return [_Part(loaded.files[0], 0, headers.GGUF_HEAD)]
        case None:
            return [_Part(loaded.files[0], 0, TREES_START)]
        case _:
            return []


def _rest(start: bytes) -> int:
    try:
        return headers.header_length(start)
    except headers.UnreadableError:
        return 0  # said when the header is parsed


def _tell(
    told: configuration.Fields,
    problems: list[str],
    file: OriginFile,
    ask: Callable[[], configuration.Fields],
) -> None:
    """Adds what a file says, or that it cannot be understood."""
    try:
        told.update({name: value for name, value in ask().items() if value is not None})
    except headers.UnreadableError as error:
        problems.append(f"{file.path} {error}")


def _of_small(file: OriginFile, content: bytes) -> configuration.Fields:
    if len(content) > SMALL_FILE:
        raise headers.UnreadableError("is larger than 1 MiB")
    if file.path in _ROOT:
        return _ROOT[file.path](headers.json_object(content))
    if file.path.endswith("model-settings.json"):
        return configuration.of_settings(headers.json_object(content))
    text = content.decode(errors="replace")
    if file.path.endswith("MLmodel"):
        return configuration.of_mlmodel(text)
    return configuration.of_triton(text)


def _of_weights(
    loaded: Weights,
    found: Mapping[OriginFile, bytes],
    told: configuration.Fields,
    problems: list[str],
) -> None:
    told.setdefault("format", loaded.format)
    told["weight_bytes"] = loaded.bytes
    first = loaded.files[0]
    if loaded.format == SAFETENSORS:
        _of_tensors(loaded, found, told, problems)
    elif loaded.format == GGUF:
        if (kind := configuration.gguf_type_of_name(first.path)) is not None:
            told["quantization"] = kind
        if first in found:
            _tell(
                told,
                problems,
                first,
                lambda: configuration.of_gguf(headers.gguf_metadata(found[first])),
            )
    elif loaded.format is None and first in found:
        _tell(told, problems, first, lambda: configuration.of_beginning(found[first]))


_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3",
    "F8_E5M2": "float8_e5m2",
}


def _of_tensors(
    loaded: Weights,
    found: Mapping[OriginFile, bytes],
    told: configuration.Fields,
    problems: list[str],
) -> None:
    by_type: dict[str, int] = {}
    read = 0
    overhead = 0
    for file in loaded.files:
        if file not in found:
            continue
        try:
            length = headers.header_length(found[file])
            header = found[file][8 : 8 + length]
            of_file = headers.tensor_bytes(header, data=file.size - 8 - length)
        except headers.UnreadableError as error:
            problems.append(f"{file.path} {error}")
            continue
        read += 1
        overhead += 8 + length
        for name, size in of_file.items():
            by_type[name] = by_type.get(name, 0) + size
    known = sum(by_type.values())
    if not known:
        return
    told["weight_bytes"] = loaded.bytes - overhead
    most = max(sorted(by_type), key=lambda name: by_type[name])
    told["dtype"] = _NAMES.get(most, most.lower())
    numbers = sum(size // headers.TYPE_BYTES.get(name, 1) for name, size in by_type.items())
    packed = sum(size for name, size in by_type.items() if name not in _NAMES)
    if packed * 10 < known:
        # Of more files than were read: as many in each byte as in those.
        complete = read == len(loaded.files)
        told["parameters"] = numbers if complete else numbers * told["weight_bytes"] // known


def _of_names(files: Sequence[OriginFile], told: configuration.Fields) -> None:
    """sentence-transformers' repositories say what they are by their files."""
    paths = {file.path for file in files}
    if "config.json" in paths and ("modules.json" in paths or "1_Pooling/config.json" in paths):
        told.update(library="sentence-transformers", task="embed")


class _Reads:
    """Reads in threads that nobody has to wait for, until the time is over."""

    def __init__(self, read: Read, *, place: str, until: float) -> None:
        self._read = read
        self._place = place
        self._until = until
        self._lock = threading.Lock()
        self._failed: dict[OriginFile, str] = {}
        self._errors: list[OriginError] = []
        self._succeeded = False

    @property
    def denied(self) -> OriginError | None:
        """The refusal, if every file that was asked for was refused."""
        with self._lock:
            refused = [e for e in self._errors if e.reason is OriginReason.ACCESS_DENIED]
            if self._succeeded or not refused or len(refused) < len(self._failed):
                return None
            return refused[0]

    @property
    def problems(self) -> list[str]:
        """What could not be read, and why."""
        with self._lock:
            return [f"{file.path} {why}" for file, why in self._failed.items()]

    def all(self, parts: Sequence[_Part]) -> dict[OriginFile, bytes]:
        """What could be read, by file."""
        found: dict[OriginFile, bytes] = {}
        left = list(parts)[::-1]

        def work(waiter: Waiter) -> None:
            try:
                while time.monotonic() < self._until:
                    with self._lock:
                        if not left:
                            return
                        part = left.pop()
                    content = self._one(part)
                    with self._lock:
                        if content is not None:
                            found[part.file] = content
                            self._succeeded = True
            finally:
                waiter.end()

        threads = []
        for _ in range(min(AT_ONCE, len(parts))):
            if (waiter := _READS.begin(self._place)) is not None:
                thread = threading.Thread(
                    target=work, args=(waiter,), name="inspection", daemon=True
                )
                threads.append((thread, waiter))
                thread.start()
        for thread, waiter in threads:
            thread.join(max(0.0, self._until - time.monotonic()))
            waiter.give_up()
        with self._lock:
            for part in parts:
                if part.file not in found:
                    self._failed.setdefault(part.file, "was not read in time")
            return dict(found)

    def _one(self, part: _Part) -> bytes | None:
        try:
            return self._read(part.file, part.start, part.length)
        except OriginError as error:
            why = f"could not be read: {error.message}"
            with self._lock:
                self._errors.append(error)
        except Exception:
            log.exception("reading %s failed", part.file.path)
            why = "could not be read; see the operator's log"
        with self._lock:
            self._failed[part.file] = why
        return None
