"""What begins like a pickle is one if an unpickler would run it, and none if it would give up.

The oracles are Python's own two unpicklers, in C and in Python, which here only note that they were
asked to import something or to hand something to the loader.
"""

from __future__ import annotations

import io
import os
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beamlit_operator.origins.pickles import is_pickle

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of odd escapes in strings

PYTHONS: Any = pickle._Unpickler  # type: ignore[attr-defined]

any_file = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
    max_examples=300,
)

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary(max_size=400)
    | st.binary(max_size=20).map(bytearray),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text(), inner)
        | st.frozensets(st.integers())
        | st.sets(st.text())
    ),
    max_leaves=20,
)


class Evil:
    """What an attacker pickles."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


# Steps that unpicklers take and that do no harm; each leaves more on the stack than was there.
harmless = st.sampled_from(
    [
        b"I0x10\n",
        b"I-0b1\n",
        b"I 7\n",
        b"I00\n",
        b"I01\n",
        b"L0x1fL\n",
        b"L1_0\n",
        b"Fnan\n",
        b"S'\\x41'\n",
        b'S"c\\n."\n',
        b"V\xe4\\u00e4\n",
        b"N",
        b"\x88",
        b"K.",
        b"Mc.",
        b"Jccc\xff",
        b"G" + b"." * 8,
        b"\x8a\x01.",
        b"\x8b\x02\0\0\0..",
        b"T\x03\0\0\0c.\n",
        b"U\x01.",
        b"B\x02\0\0\0c.",
        b"C\x02c\n",
        b"\x8e\x02\0\0\0\0\0\0\0c.",
        b"\x96\x02\0\0\0\0\0\0\0c.",
        b"\x8c\x01.",
        b"X\x01\0\0\0.",
        b"\x8d\x01\0\0\0\0\0\0\0.",
        b"(",
        b"]",
        b")",
        b"}",
        b"\x8f",
        b"N0N",
        b"N2",
        b"Nq.",
        b"Np46\n",
        b"Nr\x2e\0\0\0",
        b"N\x94",
        b"(Nt",
        b"N\x85",
        b"]Na",
        b"\x80\x02",
        b"\x80\x05",
    ]
)
steps = st.lists(harmless, max_size=30).map(b"".join)
imports = st.sampled_from(
    [
        b"cos\nsystem\n",
        b"(ios\nsystem\n",
        b"\x8c\x02os\x8c\x06system\x93",
        b"\x82\x07",
        b"\x83\x07\0",
        b"\x84\x07\0\0\0",
        b"P1\n",
        b"NQ",
    ]
)
starts = st.integers(2, 5).map(lambda protocol: bytes((0x80, protocol)))


class AskedError(Exception):
    """An unpickler got to where code may run."""


def asked(unpickler: Any, content: bytes) -> bool:
    """Whether an unpickler runs code for this content, or makes something of it."""

    class Noting(unpickler):  # type: ignore[misc]
        def find_class(self, _module: str, _name: str) -> Any:
            raise AskedError

        def persistent_load(self, _id: Any) -> Any:
            raise AskedError

        def get_extension(self, _code: int) -> Any:  # Python's own asks copyreg here
            raise AskedError

    try:
        Noting(io.BytesIO(content), encoding="bytes").load()
    except AskedError:
        return True
    except Exception:
        return False
    return True


def written(folder: Path, content: bytes) -> Path:
    file = folder / "weights.safetensors"
    file.unlink(missing_ok=True)  # some file systems wait for the disk when a file is overwritten
    file.write_bytes(content)
    return file


@any_file
@given(value=values, protocol=st.integers(2, 5), junk=st.binary(max_size=20))
def test_what_was_pickled_is_a_pickle_whatever_follows(
    tmp_path: Path, value: Any, protocol: int, junk: bytes
) -> None:
    assert is_pickle(written(tmp_path, pickle.dumps(value, protocol) + junk))


@pytest.mark.parametrize("protocol", range(2, 6))
def test_a_large_pickle_in_frames_is_one(tmp_path: Path, protocol: int) -> None:
    value = [bytes(100_000), *("a text of some length" * 10 + str(n) for n in range(2_000))]
    assert is_pickle(written(tmp_path, pickle.dumps(value, protocol)))


@any_file
@given(start=starts, before=steps, payload=imports, junk=st.binary(max_size=20))
def test_a_payload_behind_harmless_steps_is_found(
    tmp_path: Path, start: bytes, before: bytes, payload: bytes, junk: bytes
) -> None:
    content = start + before + payload + junk
    assert is_pickle(written(tmp_path, content))


@any_file
@given(start=starts, before=steps, protocol=st.integers(2, 5))
def test_an_evil_object_behind_harmless_steps_is_found_as_unpicklers_find_it(
    tmp_path: Path, start: bytes, before: bytes, protocol: int
) -> None:
    content = start + before + pickle.dumps(Evil(), protocol)
    assert asked(pickle.Unpickler, content), "the test's own steps stop the unpickler"
    assert is_pickle(written(tmp_path, content))


@any_file
@given(
    start=starts,
    pieces=st.lists(harmless | imports | st.binary(min_size=1, max_size=3), max_size=12),
)
def test_whatever_an_unpickler_would_run_is_a_pickle(
    tmp_path: Path, start: bytes, pieces: list[bytes]
) -> None:
    # These two make room for as much as they say, before they read it.
    content = start + b"".join(
        piece if len(piece) > 3 else piece.replace(b"r", b"").replace(b"\x96", b"")
        for piece in pieces
    )
    runs = asked(pickle.Unpickler, content) or asked(PYTHONS, content)
    assert is_pickle(written(tmp_path, content)) or not runs


def test_an_import_that_lacks_its_arguments_is_made_by_the_unpickler_in_python(
    tmp_path: Path,
) -> None:
    content = b"\x80\x02ios\nsystem\n"
    assert asked(PYTHONS, content)
    assert is_pickle(written(tmp_path, content))


def test_the_first_of_pytorchs_pickles_is_enough(tmp_path: Path) -> None:
    # torch.save before 1.6: a magic number, a version, the system, and only then the model.
    content = b"".join(
        pickle.dumps(part, 2)
        for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, Evil())
    )
    assert is_pickle(written(tmp_path, content))


def test_an_endless_line_is_read_to_its_end(tmp_path: Path) -> None:
    line = b"\x80\x02V" + b"c" * 200_000
    assert is_pickle(written(tmp_path, line + b"\ncos\nsystem\n"))
    assert not is_pickle(written(tmp_path, line))


def test_a_long_argument_is_passed_over(tmp_path: Path) -> None:
    content = b"\x80\x04\x8e" + (3_000_000).to_bytes(8, "little") + bytes(3_000_000) + b"."
    assert is_pickle(written(tmp_path, content))
    assert not is_pickle(written(tmp_path, content[:-2]))


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (b"B", True),  # bytes: their length has no sign
        (b"T", False),  # text: it has, and so unpicklers refuse this one
    ],
)
def test_an_argument_of_more_than_two_gibibytes_is_passed_over(
    tmp_path: Path, step: bytes, expected: bool
) -> None:
    length = 2**31 + 7
    file = written(tmp_path, b"\x80\x03" + step + length.to_bytes(4, "little"))
    with file.open("r+b") as content:  # takes no room: what is skipped is a hole
        content.seek(length, os.SEEK_END)
        content.write(b".")
    assert is_pickle(file) is expected


def test_steps_without_end_are_a_pickle(tmp_path: Path) -> None:
    assert is_pickle(written(tmp_path, b"\x80\x04" + b"N0" * 10_000 + b"\xff"))


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04",
        b"\x80\x04\x95" + bytes(8),
        b"\x80\x02\xff.",
        b"\x80\x02N\xffcos\nsystem\n",
        b"\x80\x02.",
        b"\x80\x02\x80\x02.",
        b"\x80\x04\x95" + bytes(8) + b".",
        b"\x80\x02\x93",
        b"\x80\x020N.",
        b"\x80\x02X\xff\0\0\0too short.",
        b"\x80\x02\x8e" + b"\xff" * 8 + b".",
        b"\x80\x02T\xff\xff\xff\xffN.",
        b"\x80\x02\x8b\xfe\xff\xff\xffN.",
        b"\x80\x02I7.",
    ],
)
def test_where_unpicklers_give_up_before_they_run_anything_is_no_pickle(
    tmp_path: Path, content: bytes
) -> None:
    assert not asked(pickle.Unpickler, content)
    assert not asked(PYTHONS, content)
    assert not is_pickle(written(tmp_path, content))


def test_few_files_of_random_bytes_are_taken_for_pickles(tmp_path: Path) -> None:
    chance = random.Random(7)
    taken = 0
    for _ in range(20_000):
        start = bytes((0x80, chance.randint(2, 5)))
        taken += is_pickle(written(tmp_path, start + chance.randbytes(2_000)))
    print(f"{taken} of 20,000 files of random bytes are taken for pickles")
    assert taken < 1_000
