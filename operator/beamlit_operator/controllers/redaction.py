"""Takes what looks like a secret out of words that are not ours: a container's last ones. Pure.

The operator does not know what a user's server prints. What follows is common, and hiding it costs
a reader little; it is no promise that nothing else gets through (docs/architecture.md).

| in the words                                   | told as                  |
|------------------------------------------------|--------------------------|
| ``password=...``, ``api_key: ...`` and alike   | ``password=***``         |
| ``Authorization: Bearer ...``                  | ``Bearer ***``           |
| ``scheme://user:password@host``                | ``scheme://***@host``    |
| tokens of a known form (Hub, AWS, OpenAI, JWT) | ``***``                  |
"""

from __future__ import annotations

import re

HIDDEN = "***"

_KEYS = "password|passwd|secret|token|api[_-]?key|access[_-]?key|secret[_-]?key|credentials?"

_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}"), rf"\1 {HIDDEN}"),
    (re.compile(r"://[^/\s@]+@"), f"://{HIDDEN}@"),
    # Eight characters at least: "unexpected token: 'x'" is no secret.
    (
        re.compile(rf"(?i)((?:{_KEYS})[\"']?\s*[=:]\s*[\"']?)(?!\*\*\*)[^\s\"',;&]{{8,}}"),
        rf"\1{HIDDEN}",
    ),
    (
        re.compile(
            r"\bhf_[A-Za-z0-9]{16,}|\b(?:AKIA|ASIA)[A-Z0-9]{16}|\bsk-[\w-]{16,}"
            r"|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"
        ),
        HIDDEN,
    ),
)


def redacted(text: str) -> str:
    """The text without what looks like a secret."""
    for pattern, instead in _RULES:
        text = pattern.sub(instead, text)
    return text
