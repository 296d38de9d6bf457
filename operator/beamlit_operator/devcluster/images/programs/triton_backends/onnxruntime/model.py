"""Triton's backend ``onnxruntime``, written in Python: real onnxruntime behind a real Triton.

It runs in a process that Triton starts, where ``triton_python_backend_utils`` is Triton's. A model
that comes without inputs and outputs in its ``config.pbtxt``, or without one, gets them from its
file by the rules of the backend in C++ (github.com/triton-inference-server/onnxruntime_backend):

| all inputs' and outputs' first dimension | max_batch_size in the file | what becomes of it      |
|------------------------------------------|----------------------------|-------------------------|
| variable                                 | none                       | 4, dynamic batching     |
| variable                                 | given                      | that one                |
| fixed, of any of them                    | none                       | 0: no batches           |
| fixed, of any of them                    | given                      | refused                 |

With batches the first dimension is left out of what Triton is told; a tensor that has no other is
told as one value.

Tensors pass as DLPack, not as numpy arrays: the process was compiled for numpy 1, and its own
conversions read and write wrong sizes with a later one. DLPack knows no texts, so a model with
texts among its inputs or outputs is refused.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import numpy as np  # type: ignore[import-not-found,unused-ignore]
import onnxruntime  # type: ignore[import-not-found,unused-ignore]
import triton_python_backend_utils as triton  # type: ignore[import-not-found,unused-ignore]

if TYPE_CHECKING:
    from typing import Any

DEFAULT_MAX_BATCH_SIZE = 4
"""Triton's own: ``--backend-config=default-max-batch-size``."""

_TYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
}


def _session(file: str) -> Any:
    options = onnxruntime.SessionOptions()
    # A pod's share of a laptop; more threads than cores only wait for each other.
    options.intra_op_num_threads = min(2, os.cpu_count() or 1)
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def _file(config: dict[str, Any], folder: str) -> str:
    return os.path.join(folder, config.get("default_model_filename") or "model.onnx")


def _file_of_this_process() -> str:
    """The model's file while its configuration is completed, when Triton passes no path: the first
    argument of this process, which is started for one model."""
    with open("/proc/self/cmdline") as line:
        file = line.read().split("\0")[1]
    return file if os.path.isfile(file) else _file({}, os.path.dirname(file))


def _dims(tensor: Any) -> list[int]:
    return [size if isinstance(size, int) else -1 for size in tensor.shape]


def _entry(tensor: Any, *, batches: bool) -> dict[str, Any]:
    if tensor.type not in _TYPES:
        raise triton.TritonModelException(
            f"{tensor.name}: {tensor.type} cannot be served by the embedded cluster's onnxruntime"
        )
    dims = _dims(tensor)[1 if batches else 0 :]
    entry: dict[str, Any] = {"name": tensor.name, "data_type": _TYPES[tensor.type]}
    if not dims:
        dims = [1]
        if batches:
            entry["reshape"] = {"shape": []}
    return {**entry, "dims": dims}


class TritonPythonModel:
    """What Triton calls."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """Fills in what the model's file says."""
        given = config.as_dict()
        if given["input"] and given["output"]:
            return config
        session = _session(_file_of_this_process())
        tensors = [*session.get_inputs(), *session.get_outputs()]
        batches = all(_dims(tensor)[:1] == [-1] for tensor in tensors)
        if batches and not given["max_batch_size"]:
            given["max_batch_size"] = DEFAULT_MAX_BATCH_SIZE
            if "sequence_batching" not in given:
                given.setdefault("dynamic_batching", {})
        if given["max_batch_size"] and not batches:
            raise triton.TritonModelException(
                f"model {given['name']} does not support batches, and its max_batch_size is not 0"
            )
        for key, found in (("input", session.get_inputs()), ("output", session.get_outputs())):
            if not given[key]:
                given[key] = [_entry(tensor, batches=batches) for tensor in found]
        return config

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the model."""
        config = json.loads(args["model_config"])
        folder = os.path.join(args["model_repository"], args["model_version"])
        self._session = _session(_file(config, folder))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answers each request; one that fails does not fail the others."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        names = list(request.requested_output_names())
        try:
            inputs = {tensor.name(): np.from_dlpack(tensor) for tensor in request.inputs()}
            outputs = self._session.run(names, inputs)
        except Exception as error:
            return triton.InferenceResponse([], triton.TritonError(str(error)))
        return triton.InferenceResponse(
            [triton.Tensor.from_dlpack(n, o) for n, o in zip(names, outputs, strict=True)]
        )
