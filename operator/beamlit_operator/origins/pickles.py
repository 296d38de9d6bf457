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
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from posixpath import basename

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
            # Two bytes are no sign yet. Imported here: most models have no such file.
            from beamlit_operator.origins.picklesteps import would_run

            file.seek(2)
            return would_run(file)
    if start != b"PK\x03\x04":
        return False
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            return any(_matches(name, ("*.pkl", "*.pickle")) for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return False


def _matches(path: str, patterns: Iterable[str]) -> bool:
    name = basename(path).lower()
    return any(fnmatchcase(name, pattern) for pattern in patterns)
