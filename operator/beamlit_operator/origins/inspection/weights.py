"""Which of a model's files are its weights: by their names alone.

A repository often holds the same weights several times: in two formats, for two libraries, in ten
quantizations. A server loads one of them.

| files, at the root unless said otherwise     | format      | the weights                         |
|----------------------------------------------|-------------|-------------------------------------|
| *.gguf, anywhere, no projector               | gguf        | the shallowest and first, all parts |
| *.safetensors, not adapter_model             | safetensors | model*.safetensors; else all but    |
|                                              |             | consolidated*; else those           |
| pytorch_model*.bin                           | pytorch     | all of them                         |
| *.onnx, anywhere                             | onnx        | the shallowest and first, its data  |
| *.plan, *.engine, anywhere                   | tensorrt    | the shallowest and first            |
| *.mar, model.pt, anywhere                    | torchserve, | the shallowest and first            |
|                                              | torchscript |                                     |
| *.ubj, model.json, *.bst, model.txt, anywhere| by content  | the shallowest and first            |
| *.joblib, *.pkl, *.pickle                    | sklearn     | the shallowest and first            |
| *.keras, *.h5                                | keras       | the shallowest and first            |

GGUF comes first since `workloads.detection` prefers it, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from posixpath import basename

from beamlit_operator.origins.listing import OriginFile

SAFETENSORS, GGUF = "safetensors", "gguf"

_PART = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<parts>\d{5})\.gguf")

_SINGLE = (
    ("tensorrt", ("*.plan", "*.engine")),
    ("torchserve", ("*.mar",)),
    ("torchscript", ("model.pt",)),
    (None, ("*.ubj", "model.json", "*.bst", "model.txt")),
    ("sklearn", ("*.joblib", "*.pkl", "*.pickle")),
    ("keras", ("*.keras", "*.h5")),
)


@dataclass(frozen=True, slots=True)
class Weights:
    """The files that a server loads; ``format`` is None where only the content tells."""

    format: str | None
    files: tuple[OriginFile, ...]

    @property
    def bytes(self) -> int:
        """Their size together."""
        return sum(max(file.size, 0) for file in self.files)


def weights(files: Sequence[OriginFile]) -> Weights | None:
    """The weights among the files; None if there are none."""
    gguf = [f for f in by_depth(files, "*.gguf") if "mmproj" not in basename(f.path)]
    if gguf:
        return Weights(GGUF, tuple(_parts(gguf[0], gguf)))
    root = [file for file in files if "/" not in file.path]
    tensors = [f for f in by_depth(root, "*.safetensors") if not f.path.startswith("adapter_")]
    if tensors:
        return Weights(SAFETENSORS, tuple(_one_copy(tensors)))
    pickled = by_depth(root, "pytorch_model*.bin")
    if pickled:
        return Weights("pytorch", tuple(pickled))
    graphs = by_depth(files, "*.onnx")
    if graphs:
        # Weights above 2 GB lie beside the graph (onnx.ai, "External Data").
        beside = [f for f in files if f.path in {graphs[0].path + s for s in ("_data", ".data")}]
        return Weights("onnx", (graphs[0], *beside))
    for name, patterns in _SINGLE:
        for pattern in patterns:
            if found := by_depth(files, pattern):
                return Weights(name, (found[0],))
    return None


def by_depth(files: Iterable[OriginFile], pattern: str) -> list[OriginFile]:
    """The files whose last name matches, the shallowest and first of the alphabet first."""
    # What has the ending first: that is much faster to see, in a hundred thousand.
    ending = pattern.rpartition("*")[2]
    likely = (file for file in files if file.path.endswith(ending))
    found = [file for file in likely if fnmatchcase(basename(file.path), pattern)]
    return sorted(found, key=lambda file: (file.path.count("/"), file.path))


def _parts(first: OriginFile, all_of_them: Iterable[OriginFile]) -> Iterable[OriginFile]:
    match = _PART.fullmatch(first.path)
    if match is None:
        return [first]
    stem, parts = match["stem"], match["parts"]
    found = ((each, _PART.fullmatch(each.path)) for each in all_of_them)
    return [each for each, m in found if m and (m["stem"], m["parts"]) == (stem, parts)]


def _one_copy(tensors: Sequence[OriginFile]) -> Sequence[OriginFile]:
    """Mistral's repositories hold all twice: `consolidated*` is for its own library."""
    named = [file for file in tensors if fnmatchcase(file.path, "model*.safetensors")]
    parts = [file for file in named if "-of-" in file.path]
    whole = [file for file in named if file.path == "model.safetensors"]
    others = [file for file in tensors if not file.path.startswith("consolidated")]
    return parts or whole or others or tensors
