"""What is kept of an API key, and what counts as one."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from beamlit_operator.api.apikey import (
    ApiKey,
    digest,
    fits,
    key_text,
    parse_keys,
    split_key,
)

ID, SECRET = "0123456789abcdef", "s" * 43
KEY = ApiKey(ID, "ci", digest(SECRET), ("a", "b"), datetime(2030, 1, 1, tzinfo=UTC))


def test_a_key_is_what_is_kept_of_it_and_its_secret() -> None:
    assert parse_keys({ID: KEY.document()}) == {ID: KEY}
    assert SECRET not in KEY.document()
    assert split_key(key_text(ID, SECRET)) == (ID, SECRET)
    assert fits(KEY, SECRET)
    assert not fits(KEY, SECRET[:-1] + "t")
    assert not fits(None, SECRET)
    assert (KEY.covers("a"), KEY.covers("c")) == (True, False)
    assert ApiKey(ID, "all", digest(SECRET), None, None).covers("c")


@pytest.mark.parametrize(
    "text", ["", "blk_", f"blk_{ID}", f"blk_{ID}_short", f"blk_{ID.upper()}_{SECRET}", SECRET]
)
def test_what_has_not_the_form_is_no_key(text: str) -> None:
    assert split_key(text) is None


@pytest.mark.parametrize(
    "change",
    [
        {"sha256": "abc"},
        {"sha256": None},
        {"deployments": "a"},
        {"deployments": [1]},
        {"expires": "soon"},
        {"expires": "2030-01-01T00:00:00"},
        {"expires": 5},
    ],
)
def test_an_entry_that_is_not_understood_is_no_key_rather_than_one_without_limits(
    change: dict[str, object],
) -> None:
    entry = {**json.loads(KEY.document()), **change}
    assert parse_keys({ID: json.dumps(entry)}) == {}


def test_entries_of_other_forms_are_passed_over() -> None:
    data = {ID: KEY.document(), "name": KEY.document(), "1" * 16: "{", "2" * 16: "[]"}
    assert set(parse_keys(data)) == {ID}
