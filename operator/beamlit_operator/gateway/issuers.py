"""Who may vouch for callers: the issuers of OpenID Connect tokens that the gateway trusts. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CLUSTER = "cluster"
"""The name of the one issuer that is always there: the cluster's own, of ServiceAccounts."""

MOST_ISSUERS = 16
"""More than anybody has; each costs Envoy a fetch of keys every few seconds."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """An OpenID Connect issuer, with the meaning of kube-apiserver's ``--oidc-*`` flags."""

    issuer: str
    audiences: tuple[str, ...]
    username_claim: str = "sub"
    username_prefix: str = ""
    groups_claim: str = ""
    groups_prefix: str = ""
    ca_file: str = ""

    def user_of(self, claims: Mapping[str, Any]) -> tuple[str, tuple[str, ...]] | None:
        """Name and groups of whom the token speaks; None if it names nobody.

        =======================================  ==============================================
        claims                                   user
        =======================================  ==============================================
        no ``usernameClaim``, or no text         nobody
        ``email``, ``email_verified`` not true   nobody: an address that anybody may have typed
        groups a text                            that one group
        groups a list                            the texts of it
        a name or group ``system:...``           never without a prefix: see :func:`_allowed`
        =======================================  ==============================================
        """
        name = claims.get(self.username_claim)
        if not isinstance(name, str) or not name:
            return None
        if self.username_claim == "email" and claims.get("email_verified", True) is not True:
            return None
        found = claims.get(self.groups_claim) if self.groups_claim else None
        listed = [found] if isinstance(found, str) else found if isinstance(found, list) else []
        user = self.username_prefix + name
        groups = [self.groups_prefix + group for group in listed if isinstance(group, str)]
        if not _allowed(user):
            return None
        return user, tuple(group for group in groups if group and _allowed(group))


def _allowed(name: str) -> bool:
    """Names that Kubernetes gives to its own parts are not an issuer's to give."""
    return not name.startswith("system:")


def parse_issuers(text: str) -> tuple[Issuer, ...]:
    """Reads a JSON list of issuers, or ``@FILE`` with one. Fields as in the chart's values.

    Raises:
        ValueError: it cannot be used; names the issuer, what is wrong, and what to write.
    """
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text("utf-8")
        except OSError as error:
            raise ValueError(f"--oidc-issuers: {text[1:]}: {error.strerror}") from error
    if not text.strip():
        return ()
    try:
        listed = json.loads(text)
    except ValueError as error:
        raise ValueError(f"--oidc-issuers is not JSON: {error}") from error
    if not isinstance(listed, list) or len(listed) > MOST_ISSUERS:
        raise ValueError(f"--oidc-issuers must be a list of at most {MOST_ISSUERS} issuers")
    found = tuple(_issuer(entry, f"--oidc-issuers[{i}]") for i, entry in enumerate(listed))
    if len({issuer.issuer for issuer in found}) != len(found):
        raise ValueError("--oidc-issuers names an issuer twice")
    return found


_FIELDS = {
    "issuer": "issuer",
    "audiences": "audiences",
    "usernameClaim": "username_claim",
    "usernamePrefix": "username_prefix",
    "groupsClaim": "groups_claim",
    "groupsPrefix": "groups_prefix",
    "caFile": "ca_file",
}


def _issuer(entry: object, where: str) -> Issuer:
    if not isinstance(entry, dict):
        raise ValueError(f'{where} must be an object such as {{"issuer": "https://..."}}')
    unknown = sorted(set(entry) - set(_FIELDS))
    if unknown:
        raise ValueError(f"{where} has no field {unknown[0]!r}; it may have: {', '.join(_FIELDS)}")
    audiences = entry.get("audiences")
    if not (
        isinstance(audiences, list)
        and audiences
        and all(isinstance(name, str) and name for name in audiences)
    ):
        raise ValueError(f"{where}.audiences must list who its tokens are for: a client id")
    given = {key: value for key, value in entry.items() if key != "audiences"}
    for key, value in given.items():
        if not isinstance(value, str):
            raise ValueError(f"{where}.{key} must be a text")
    url = urlsplit(given.get("issuer", ""))
    # Keys that come without TLS are anybody's. Loopback is for tests.
    if not (url.hostname and (url.scheme == "https" or _loopback(url.scheme, url.hostname))):
        raise ValueError(f"{where}.issuer must be the issuer's URL, and begin with https://")
    texts = {_FIELDS[key]: value for key, value in given.items()}
    return Issuer(audiences=tuple(audiences), **texts)


def _loopback(scheme: str, host: str) -> bool:
    return scheme == "http" and host in ("127.0.0.1", "localhost")
