"""Takes secrets out of what goes into a support bundle. Pure.

Two nets, one behind the other:

1. What secrets are known is taken out wherever it stands: the values of the Secrets that could be
   read, as they are and in base64.
2. What has a place where secrets stand, or the form of one:

| where                                                        | what stays                      |
|--------------------------------------------------------------|---------------------------------|
| Secrets                                                      | name, type, keys                |
| `value` of environment variables and of headers of probes    | the name                        |
| arguments of containers after `=`, or after a flag, where    |                                 |
| the flag's name sounds like a secret                         | the flag                        |
| annotations, other than a few of Kubernetes' and ours        | the key                         |
| `managedFields`, `caBundle`                                  | nothing                         |
| data of ConfigMaps that are not ours                         | the keys                        |
| texts under a key that sounds like a secret (`password: x`)  | the key                         |
| URLs: user and password, values in the query                 | the rest                        |
| PEM blocks of keys, `Bearer x`, `Basic x`, `name=value` that |                                 |
| sounds like a secret, tokens of a known form                 | the text around                 |

Rather too much than too little: who needs more can ask for it.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from typing import Any

from beamlit_operator.controllers.redaction import HIDDEN, redacted
from beamlit_operator.kube import Json

SHORTEST = 8
"""Characters that the value of a Secret must have to be looked for: shorter ones are words."""

LONG_LINE = 20
"""Characters from which on each line of a longer value is looked for by itself."""

_PLAIN = re.compile(r"(?i)region|endpoint|host|port|bucket|url$")
"""Keys of Secrets whose values are settings; URLs are handled as such."""

_SOUNDS = re.compile(
    r"(?i)passw|passphrase|secret|token|credential|private|signature|api[-_]?key|access[-_]?key"
    r"|auth"
)
_REFERENCE = re.compile(r"(?i)(name|ref|namespace|path|file|type|policy|mode)s?$")
"""Keys such as `secretName`: they tell where a secret is, and not what."""

_KEPT_ANNOTATIONS = re.compile(
    r"^(deployment\.kubernetes\.io|kubernetes\.io|app\.kubernetes\.io|meta\.helm\.sh"
    r"|helm\.sh|beamlit\.com|[a-z-]+\.beamlit\.com)/"
)

_TEXTS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S
        ),
        HIDDEN,
    ),
    # A slash in a password should be written in percent, and often is not.
    (re.compile(r"://[^\s@\"':]*:[^\s@\"']*@|://[^/\s@\"']+@"), f"://{HIDDEN}@"),
    (re.compile(r"([?&](?!environment=)[\w.~%-]+=)[^&\s\"'#<>)\]}]+"), rf"\1{HIDDEN}"),
    (re.compile(r"(?i)\b(bearer|basic|digest|negotiate)\s+[\w.~+/=:-]{6,}"), rf"\1 {HIDDEN}"),
    (
        re.compile(
            r"(?i)((?:password|passwd|passphrase|secret|token|credentials?|signature|api[_-]?key"
            r"|access[_-]?key(?:[_-]?id)?|secret[_-]?key)\\?[\"']?\s*[=:]\s*)"
            # What is on or off is no secret, and a document must stay one.
            r"(?!(?:true|false|null)(?![^\s,}\]]))"
            r"(\\?\"[^\"]*\"|'[^']*'|[^\s\"',;&]+)"
        ),
        rf"\1{HIDDEN}",
    ),
    (
        re.compile(
            r"\bgh[pousr]_\w{16,}|\bgithub_pat_\w{16,}|\bglpat-[\w-]{16,}|\bxox[abprs]-[\w-]{10,}"
            r"|\bAIza[\w-]{30,}|\bya29\.[\w-]{16,}|\bblt_[\w-]{16,}"
        ),
        HIDDEN,
    ),
)


class Redaction:
    """Takes out what is known to be secret, and what looks like it."""

    def __init__(self, secrets: Iterable[Json] = ()) -> None:
        """``secrets`` are the Secrets of the cluster that could be read, whole."""
        values = sorted({text for each in secrets for text in _values(each)}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, values))) if values else None

    def text(self, text: str) -> str:
        """A text without secrets."""
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        for pattern, instead in _TEXTS:
            text = pattern.sub(instead, text)
        return redacted(text)

    def object(self, item: Json) -> Json:
        """An object without secrets; of a Secret nothing but its keys."""
        if item.get("kind") == "Secret":
            return outline(item)
        item = {key: value for key, value in item.items() if key not in ("data", "binaryData")} | (
            self._data(item)
        )
        cleaned = self._walk(item)
        assert isinstance(cleaned, dict)
        return cleaned

    def _data(self, item: Json) -> Json:
        """The data of a ConfigMap: whole if it is ours."""
        ours = str((item.get("metadata") or {}).get("name", "")).startswith("beamlit-")
        found: Json = {}
        for field in ("data", "binaryData"):
            data = item.get(field)
            if isinstance(data, dict):
                keep = ours and field == "data"
                found[field] = data if keep else dict.fromkeys(data, HIDDEN)
        return found

    def _walk(self, node: Any, key: str = "") -> Any:
        if isinstance(node, dict):
            return {
                # Keys are text as well, and some are made by users.
                self.text(str(name)): self._field(str(name), value)
                for name, value in node.items()
                if name not in ("managedFields", "caBundle")
            }
        if isinstance(node, list):
            if key in ("args", "command"):
                return self._arguments(node)
            if key in ("env", "envs", "httpHeaders"):
                return [self._variable(each) for each in node]
            return [self._walk(each, key) for each in node]
        return self.text(node) if isinstance(node, str) else node

    def _field(self, name: str, value: Any) -> Any:
        if name == "annotations" and isinstance(value, dict):
            return {self.text(str(k)): self._annotation(str(k), v) for k, v in value.items()}
        if (
            isinstance(value, str)
            and value
            and _SOUNDS.search(name)
            and not _REFERENCE.search(name)
        ):
            return HIDDEN
        return self._walk(value, name)

    def _annotation(self, key: str, value: Any) -> Any:
        # Ours hold specs as they were at times; those are objects in text.
        if not _KEPT_ANNOTATIONS.match(key) or not isinstance(value, str):
            return HIDDEN
        return HIDDEN if value.lstrip().startswith(("{", "[")) else self.text(value)

    def _variable(self, item: Any) -> Any:
        if not isinstance(item, dict):
            return HIDDEN
        cleaned = self._walk({key: value for key, value in item.items() if key != "value"})
        assert isinstance(cleaned, dict)
        return {**cleaned, "value": HIDDEN} if item.get("value") else cleaned

    def _arguments(self, arguments: list[Any]) -> list[Any]:
        """Command lines: `--flag=value` and `--flag value`, where the flag sounds like a secret."""
        cleaned: list[Any] = []
        after_flag = False
        for each in arguments:
            if not isinstance(each, str):
                cleaned.append(self._walk(each))
                continue
            flag, equals, _ = each.partition("=")
            sounds = flag.startswith("-") and bool(_SOUNDS.search(flag))
            if after_flag:
                cleaned.append(HIDDEN)
            elif sounds and equals:
                cleaned.append(f"{flag}={HIDDEN}")
            else:
                cleaned.append(self.text(each))
            after_flag = sounds and not equals
        return cleaned


def outline(secret: Json) -> Json:
    """What a Secret is called and which keys it has."""
    metadata = secret.get("metadata") or {}
    names = {k: metadata[k] for k in ("name", "namespace", "creationTimestamp") if k in metadata}
    return {
        "kind": "Secret",
        "metadata": names,
        "type": secret.get("type", ""),
        "keys": sorted({**(secret.get("data") or {}), **(secret.get("stringData") or {})}),
    }


def _values(secret: Json) -> Iterable[str]:
    """What to look for: the values of a Secret, plain and in base64, and their longer lines."""
    for key, encoded in (secret.get("data") or {}).items():
        if _PLAIN.search(key) or not isinstance(encoded, str):
            continue
        try:
            plain = base64.b64decode(encoded, validate=True).decode()
        except (binascii.Error, ValueError):
            plain = ""
        for text in (plain, plain.strip(), encoded, encoded.rstrip("=")):
            if len(text) >= SHORTEST:
                yield text
        for line in plain.splitlines():
            if len(line.strip()) >= LONG_LINE and "-----" not in line:
                yield line.strip()
