"""Files that can run code when a model server loads them, and whether a model needs them.

A pickle is a program for Python's unpickler (docs.python.org, "pickle": "never unpickle data that
could have come from an untrusted source"). Frameworks wrap it in files of other names: joblib, and
PyTorch's own format. Pure, but for :func:`is_pickle`, which looks into a file.

| the Model says | pickles, by name | weights of another form | what is fetched, what is refused |
|----------------|------------------|-------------------------|----------------------------------|
| allowPickle    |                  |                         | everything                       |
| nothing        | none             |                         | everything                       |
| nothing        | some             | yes                     | everything but the pickles       |
| nothing        | some             | no                      | refused: the pickles are needed  |

Names can lie, so what was fetched without leave is looked into before it is published. What comes
out of archives (`spec.unpack`) is held to the same table once it is unpacked.

Two bytes make no pickle: files of any kind may begin with them. An unpickler runs what it reads as
it reads it, so its steps are walked until it is known what it would do:

| what comes first                                            | a pickle                     |
|-------------------------------------------------------------|------------------------------|
| a step that imports, or hands something to the loader       | yes, whatever follows        |
| the end of the pickle (another may follow: PyTorch's do)    | yes                          |
| more than 10,000 other steps                                | yes                          |
| a step that does not exist, or the end of the file          | no: unpicklers give up there |
| as the very first, a step that takes what is not there      | no, likewise                 |
"""

from __future__ import annotations

import os
import pickletools
import zipfile
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from posixpath import basename
from typing import IO

from beamlit_operator.origins.listing import is_archive

_PICKLES = (
    "*.pkl",
    "*.pickle",
    "*.joblib",
    "*.dill",
    "*.cloudpickle",
    # What torch.save writes; TorchScript and TorchServe's archives are zip files with pickles in.
    "*.pt",
    "*.pth",
    "*.ckpt",
    "*.mar",
    "pytorch_model*.bin",
    "adapter_model.bin",
    "training_args.bin",
    "optimizer.bin",
    "scheduler.bin",
)

_WEIGHTS = (
    "*.safetensors",
    "*.gguf",
    "*.onnx",
    "*.plan",
    "*.ubj",
    "*.bst",
    "*.keras",
    "*.h5",
    "*.tflite",
    "saved_model.pb",
    "model.json",
    "model.txt",
)
"""Files that hold weights as data."""

# PROTO and its argument, with which all pickles begin since protocol 2 (PEP 307, PEP 3154).
_FIRST = tuple(bytes((0x80, protocol)) for protocol in range(2, 6))

_STEPS = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}

_DECISIVE = frozenset(
    opcode.code.encode("latin-1")
    for opcode in pickletools.opcodes
    if opcode.name
    in {
        *("GLOBAL", "INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4"),
        *("PERSID", "BINPERSID"),
        "STOP",
    }
)
"""Nothing that is on the stack before the first of these can be called (pickletools.py)."""

_BEFORE_THE_FIRST = frozenset((b"\x80", b"\x95"))
"""PROTO and FRAME leave the stack as it is."""

_MOST_STEPS = 10_000
_CHUNK_BYTES = 2**16

# How an argument says its own length: bytes of the length, and whether it has a sign.
_COUNTED = {
    pickletools.TAKEN_FROM_ARGUMENT1: (1, False),
    pickletools.TAKEN_FROM_ARGUMENT4: (4, True),
    pickletools.TAKEN_FROM_ARGUMENT4U: (4, False),
    pickletools.TAKEN_FROM_ARGUMENT8U: (8, False),
}


def pickles(paths: Iterable[str]) -> list[str]:
    """The files that are pickles by their names."""
    return [path for path in paths if _matches(path, _PICKLES)]


def needed_pickles(paths: Sequence[str], *, unpack: bool = False) -> list[str]:
    """The pickles of a model that has no weights of another form; empty if it can do without, or
    if that cannot be known before its archives are unpacked."""
    if unpack and any(map(is_archive, paths)):
        return []
    if any(_matches(path, _WEIGHTS) for path in paths):
        return []
    return pickles(paths)


def allowed_paths(paths: Sequence[str], *, allow_pickle: bool) -> tuple[str, ...]:
    """The files that are fetched."""
    if allow_pickle:
        return tuple(paths)
    left_out = set(pickles(paths))
    return tuple(path for path in paths if path not in left_out)


def refusal(found: Sequence[str]) -> str:
    """What to say of pickles that are needed and not allowed."""
    some = ", ".join(repr(path) for path in found[:3])
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return (
        f"{some}{more} can run code when loaded (pickle), and there are no weights of another "
        "form: set spec.allowPickle of the Model (by hand: --allow-pickle) if you trust the "
        "origin, or convert them, to safetensors or ONNX"
    )


def is_pickle(path: Path) -> bool:
    """Whether the content is a pickle, or a zip file that holds one, whatever the name says.

    Pickles of the protocols 0 and 1 and compressed ones have no sure sign; loaders that take them
    go by names, and those are not fetched.
    """
    with path.open("rb") as file:
        start = file.read(4)
        if start[:2] in _FIRST:
            file.seek(2)
            return _would_run(file)
    if start != b"PK\x03\x04":
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(_matches(name, ("*.pkl", "*.pickle")) for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return False


def _would_run(file: IO[bytes]) -> bool:
    """Whether an unpickler would get to a step that can run code, or to the pickle's end.

    What arguments say is never looked at, only where they end: unpicklers differ in what they take
    (Python's own reads ``I0x10`` as 16, its ``pickletools`` does not), so nobody can hide behind an
    odd one. Of 20,000 files of random bytes that begin like a pickle, 554 are taken for one, 2.8%
    (``pytest -s -k random_bytes tests/unit/origins/test_pickle_steps.py``).
    """
    size = os.fstat(file.fileno()).st_size
    stack_is_empty = True
    for _ in range(_MOST_STEPS):
        code = file.read(1)
        step = _STEPS.get(code)
        if step is None:
            return False
        if stack_is_empty and code not in _BEFORE_THE_FIRST:
            # INST: Python's own unpickler imports before it looks for what it takes.
            if step.stack_before and step.name != "INST":
                return False
            stack_is_empty = False
        if code in _DECISIVE:
            return True
        if step.arg is None:
            continue
        if step.arg.n == pickletools.UP_TO_NEWLINE:
            _skip_line(file)
            continue
        length = step.arg.n
        if length in _COUNTED:
            width, signed = _COUNTED[length]
            length = int.from_bytes(file.read(width), "little", signed=signed)
        if length < 0 or file.tell() + length > size:
            return False
        file.seek(length, os.SEEK_CUR)
    return True


def _skip_line(file: IO[bytes]) -> None:
    """Lines may be as long as the file."""
    while (part := file.readline(_CHUNK_BYTES)) and not part.endswith(b"\n"):
        pass


def _matches(path: str, patterns: Iterable[str]) -> bool:
    name = basename(path).lower()
    return any(fnmatchcase(name, pattern) for pattern in patterns)
