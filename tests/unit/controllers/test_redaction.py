"""What containers print when they die is told to people, but not the secrets in it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.controllers.test_diagnosis import container, ended, pod

from beamlit_operator.controllers.diagnosis import why_not_started
from beamlit_operator.controllers.redaction import redacted


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("bad login: password=hunter2hunter2", "bad login: password=***"),
        ("DB_PASSWORD: 'correct horse'", "DB_PASSWORD: 'correct horse'"),
        ("AWS_SECRET_ACCESS_KEY=abcdefghijkl/+=", "AWS_SECRET_ACCESS_KEY=***"),
        ('{"api_key": "0123456789abcdef"}', '{"api_key": "***"}'),
        ("Authorization: Bearer abc.def-ghi_jkl", "Authorization: Bearer ***"),
        ("connect postgres://me:pass@db:5432/x", "connect postgres://***@db:5432/x"),
        ("401 for hf_ABCDEFGHIJKLMNOPQRST", "401 for ***"),
        ("key AKIAABCDEFGHIJKLMNOP is off", "key *** is off"),
        ("unexpected token: 'x' in line 3", "unexpected token: 'x' in line 3"),
        ("tokenizer: file not found", "tokenizer: file not found"),
        ("No module named 'torch'", "No module named 'torch'"),
    ],
)
def test_secrets_are_taken_out_and_the_rest_stays(words: str, told: str) -> None:
    assert redacted(words) == told


@given(st.text(max_size=300))
def test_it_takes_any_text_and_changes_nothing_twice(text: str) -> None:
    once = redacted(text)
    assert redacted(once) == once


def test_the_reason_of_a_failed_start_tells_no_secret() -> None:
    last = ended(1, "cannot log in with token=abcdefghijklmnop")
    status = container(state={"waiting": {"reason": "CrashLoopBackOff"}}, lastState=last)
    told = why_not_started([pod(containerStatuses=[status])])
    assert told is not None
    assert "token=***" in told
