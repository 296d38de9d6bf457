"""What a token's claims make of its bearer, and which issuers can be configured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from beamlit_operator.gateway.issuers import Issuer, parse_issuers
from beamlit_operator.gateway.signingkeys import KeysError, usable_keys

PLAIN = Issuer("https://id.test", ("beamlit",), groups_claim="groups")
BY_MAIL = Issuer("https://id.test", ("beamlit",), username_claim="email", username_prefix="id:")


@pytest.mark.parametrize(
    ("issuer", "claims", "user"),
    [
        (PLAIN, {"sub": "ada"}, ("ada", ())),
        (PLAIN, {}, None),
        (PLAIN, {"sub": 7}, None),
        (PLAIN, {"sub": ""}, None),
        (PLAIN, {"sub": "system:admin"}, None),
        (PLAIN, {"sub": "ada", "groups": "one"}, ("ada", ("one",))),
        (PLAIN, {"sub": "ada", "groups": ["a", 3, "", "b"]}, ("ada", ("a", "b"))),
        (PLAIN, {"sub": "ada", "groups": ["system:masters", "b"]}, ("ada", ("b",))),
        (PLAIN, {"sub": "ada", "groups": {"a": 1}}, ("ada", ())),
        (BY_MAIL, {"email": "a@b.test"}, ("id:a@b.test", ())),
        (BY_MAIL, {"email": "a@b.test", "email_verified": True}, ("id:a@b.test", ())),
        (BY_MAIL, {"email": "a@b.test", "email_verified": False}, None),
        (BY_MAIL, {"email": "a@b.test", "email_verified": "true"}, None),
        (BY_MAIL, {"sub": "ada"}, None),
    ],
)
def test_claims_name_a_user_and_groups(
    issuer: Issuer, claims: dict[str, Any], user: tuple[str, tuple[str, ...]] | None
) -> None:
    assert issuer.user_of(claims) == user


def test_issuers_are_read_from_text_or_file(tmp_path: Path) -> None:
    given = [
        {
            "issuer": "https://id.test",
            "audiences": ["a", "b"],
            "usernameClaim": "email",
            "usernamePrefix": "id:",
            "groupsClaim": "roles",
            "groupsPrefix": "id:",
            "caFile": "/ca.pem",
        }
    ]
    path = tmp_path / "issuers.json"
    path.write_text(json.dumps(given))
    wanted = Issuer("https://id.test", ("a", "b"), "email", "id:", "roles", "id:", "/ca.pem")
    assert parse_issuers(json.dumps(given)) == parse_issuers(f"@{path}") == (wanted,)
    assert parse_issuers("") == parse_issuers("[]") == ()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "not JSON"),
        ("{}", "list"),
        ("[1]", r"\[0\]"),
        ('[{"issuer": "https://x"}]', "audiences"),
        ('[{"issuer": "https://x", "audiences": []}]', "audiences"),
        ('[{"issuer": "http://x.test", "audiences": ["a"]}]', "https://"),
        ('[{"issuer": "x", "audiences": ["a"]}]', "https://"),
        ('[{"issuer": "https://x", "audiences": ["a"], "user": "u"}]', "'user'"),
        ('[{"issuer": "https://x", "audiences": ["a"], "caFile": 1}]', "caFile"),
        (json.dumps([{"issuer": "https://x", "audiences": ["a"]}] * 2), "twice"),
        ("@/nowhere/at/all", "/nowhere/at/all"),
    ],
)
def test_what_is_wrong_with_an_issuer_is_said(text: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        parse_issuers(text)


def test_only_public_keys_for_signatures_count() -> None:
    rsa = {"kty": "RSA", "n": "x", "e": "AQAB"}
    keys = [
        rsa,
        {**rsa, "use": "enc"},
        {"kty": "oct", "k": "secret"},
        {"kty": "EC", "crv": "P-256"},
        {"kty": "EC", "crv": "secp256k1"},
        {"kty": "OKP", "crv": "Ed25519"},
        "text",
    ]
    kept = json.loads(usable_keys({"keys": keys}))["keys"]
    assert kept == [keys[0], keys[3], keys[5]]
    for document in ({}, {"keys": []}, {"keys": [keys[2]]}, {"keys": "RSA"}):
        with pytest.raises(KeysError):
            usable_keys(document)
