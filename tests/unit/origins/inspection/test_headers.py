"""The beginnings of weight files: what they say, and that nothing in them breaks the reader."""

import json
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.modelfiles import gguf, safetensors

from beamlit_operator.origins.inspection.headers import (
    MAX_HEADER,
    UnreadableError,
    gguf_metadata,
    header_length,
    json_object,
    tensor_bytes,
)


def test_a_safetensors_header_tells_the_bytes_of_each_type() -> None:
    file = safetensors({"a": ("BF16", [4, 8]), "b": ("BF16", [8]), "scale": ("F32", [3])})
    length = header_length(file)
    found = tensor_bytes(file[8 : 8 + length], data=len(file) - 8 - length)
    assert found == {"BF16": 80, "F32": 12}


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (b"", "does not begin"),
        (b"PK\x03\x04 an archive of something", "does not begin"),
        (struct.pack("<Q", MAX_HEADER + 1) + b"{", "more than"),
        (struct.pack("<Q", 2**64 - 1) + b"{}", "more than"),
    ],
)
def test_what_is_no_safetensors_file_is_told(start: bytes, said: str) -> None:
    with pytest.raises(UnreadableError, match=said):
        header_length(start)


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"{",
        b'{"a": {"dtype": "F32"}}',
        b'{"a": {"dtype": "F32", "data_offsets": [0, -4]}}',
        b'{"a": {"dtype": "F32", "data_offsets": [-8, 4]}}',
        b'{"a": {"dtype": "F32", "data_offsets": [0, 1e999]}}',
        b'{"a": {"dtype": "F32", "data_offsets": [0, NaN]}}',
        b'{"a": {"dtype": "F32", "data_offsets": [true, false]}}',
        b'{"a": {"dtype": "F32", "data_offsets": [0, 101]}}',
        b'{"a": {"dtype": ["F32"], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "data_offsets": [0, 99]}, "b": {"dtype": "F32", "data_offsets": '
        b"[0, 99]}}",
        b'{"a": {"dtype": "F32", "data_offsets": [0, ' + b"9" * 5000 + b"]}}",
    ],
)
def test_tensors_that_cannot_be_in_the_file_are_refused(header: bytes) -> None:
    with pytest.raises(UnreadableError):
        tensor_bytes(header, data=100)


def test_json_that_is_nested_too_deep_is_no_object() -> None:
    with pytest.raises(UnreadableError):
        json_object(b'{"a":' * 200_000)
    with pytest.raises(UnreadableError):
        json_object(b"[" * 200_000)


def test_gguf_metadata_is_read_and_lists_of_texts_are_not() -> None:
    file = gguf(
        {
            "general.architecture": "llama",
            "tokenizer.ggml.tokens": ["a", "bc"],
            "llama.block_count": 32,
            "llama.attention.head_count_kv": [8, 8, 4],
            "llama.rope.freq_base": 500000.0,
        }
    )
    assert gguf_metadata(file) == {
        "general.architecture": "llama",
        "llama.block_count": 32,
        "llama.attention.head_count_kv": [8, 8, 4],
        "llama.rope.freq_base": 500000.0,
    }


def test_gguf_metadata_ends_where_the_bytes_do() -> None:
    file = gguf({"general.architecture": "llama", "llama.block_count": 32, "z": "x" * 100})
    whole = gguf_metadata(file)
    for end in range(24, len(file)):
        part = gguf_metadata(file[:end])
        assert part.items() <= whole.items()


@pytest.mark.parametrize("start", [b"", b"GGUF", b"GGML" + bytes(40), gguf({}, version=1)])
def test_what_is_no_gguf_file_is_told(start: bytes) -> None:
    with pytest.raises(UnreadableError):
        gguf_metadata(start)


def test_a_gguf_file_of_the_other_byte_order_is_told() -> None:
    with pytest.raises(UnreadableError):
        gguf_metadata(b"GGUF" + struct.pack(">IQQ", 3, 0, 1) + bytes(40))


def test_counts_of_gguf_are_not_believed() -> None:
    pair = struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, 4, 2**63)
    assert gguf_metadata(b"GGUF" + struct.pack("<IQQ", 3, 0, 2**64 - 1) + pair) == {}


@given(st.binary(max_size=400))
def test_any_bytes_after_the_magic_are_survived(tail: bytes) -> None:
    for start in (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**40) + tail, tail):
        try:
            found = gguf_metadata(start)
        except UnreadableError:
            continue
        assert all(isinstance(key, str) for key in found)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


@settings(max_examples=40)
@given(
    st.dictionaries(
        st.text(max_size=4),
        _JSON
        | st.fixed_dictionaries(
            {"dtype": _JSON, "data_offsets": st.lists(st.integers(-5, 300), max_size=3)}
        ),
    ),
    st.integers(-10, 300),
)
def test_any_header_is_survived_and_never_tells_more_than_the_file_holds(
    header: dict[str, object], data: int
) -> None:
    try:
        found = tensor_bytes(json.dumps(header).encode(), data=data)
    except UnreadableError:
        return
    assert 0 <= sum(found.values()) <= max(data, 0)
