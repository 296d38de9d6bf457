"""No secret gets into a support bundle, wherever it stands; what is none stays."""

from __future__ import annotations

import base64
import json
import string
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from beamlit_operator.cli.bundle.redaction import Redaction, outline

ALPHABET = string.ascii_letters + string.digits + "-_.~+/"
SECRETS = st.text(alphabet=ALPHABET, min_size=14, max_size=60).filter(
    lambda text: sum(c.isalnum() for c in text) > 12
)


def pod(**container: Any) -> dict[str, Any]:
    return {"kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [container]}}


OBJECTS: dict[str, Callable[[str], dict[str, Any]]] = {
    "a variable": lambda s: pod(env=[{"name": "PLAIN", "value": s}]),
    "a variable of a runtime": lambda s: {
        "spec": {"runtime": {"envs": [{"name": "A", "value": s}]}}
    },
    "a probe's header": lambda s: pod(
        readinessProbe={"httpGet": {"httpHeaders": [{"name": "X", "value": s}]}}
    ),
    "an argument": lambda s: pod(args=[f"--api-key={s}"]),
    "the argument after a flag": lambda s: pod(command=["serve", "--hub-token", s, "--port", "80"]),
    "an annotation of somebody": lambda s: {"metadata": {"annotations": {"example.com/x": s}}},
    "what was applied last": lambda s: {
        "metadata": {
            "annotations": {
                "kubectl.kubernetes.io/last-applied-configuration": json.dumps(
                    {"spec": {"env": [{"name": "A", "value": s}]}}
                )
            }
        }
    },
    "a spec in an annotation of ours": lambda s: {
        "metadata": {"annotations": {"beamlit.com/was": json.dumps({"x": s})}}
    },
    "managed fields": lambda s: {"metadata": {"managedFields": [{"fieldsV1": {f"k:{s}": {}}}]}},
    "a password in free form": lambda s: {"spec": {"podTemplate": {"spec": {"dbPassword": s}}}},
    "a user of a URL": lambda s: {"spec": {"endpoint": f"https://me:{s}@store.example/x"}},
    "a signed query": lambda s: {
        "status": {"message": f"GET https://s3.example/a?X-Amz-Signature={s}&b=1 failed: 403"}
    },
    "a message": lambda s: {"status": {"conditions": [{"message": f'refused: "token": "{s}"'}]}},
    "a ConfigMap of somebody": lambda s: {
        "kind": "ConfigMap",
        "metadata": {"name": "theirs"},
        "data": {"config.ini": s},
        "binaryData": {"more": s},
    },
    "a Secret": lambda s: {
        "kind": "Secret",
        "metadata": {"name": "x", "annotations": {"a": s}},
        "data": {"k": base64.b64encode(s.encode()).decode()},
        "stringData": {"p": s},
    },
}


@pytest.mark.parametrize("where", OBJECTS)
@settings(max_examples=30)
@given(secret=SECRETS)
@example(secret="correct-horse-battery")
def test_no_secret_is_left_in_an_object(where: str, secret: str) -> None:
    text = yaml.safe_dump(Redaction().object(OBJECTS[where](secret)), width=10_000)
    assert secret not in text
    assert base64.b64encode(secret.encode()).decode() not in text


LINES = {
    "a bearer": "Authorization: Bearer {}",
    "basic": "proxy-authorization: basic {}",
    "an assignment": "connecting with password={} to db",
    "JSON": '{{"level":"info","api_key":"{}"}}',
    "JSON in JSON": '{{"message":"{{\\"token\\": \\"{}\\"}}"}}',
    "YAML": "secret_key: '{}'",
    "a URL": "proxy http://user:{}@proxy:3128 refused",
    "a query": 'GET "https://hub.example/x?sig={}&se=2030" 403',
    "a key in PEM": "-----BEGIN EC PRIVATE KEY-----\n{}\n-----END EC PRIVATE KEY-----",
    "half a key": "-----BEGIN PRIVATE KEY-----\n{}",
}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
@settings(max_examples=30)
@given(secret=SECRETS)
def test_no_secret_is_left_in_a_log(line: str, secret: str) -> None:
    text = f"before\n{line.format(secret)}\n"
    told = Redaction().text(text)
    assert secret not in told
    assert told.startswith("before\n")


@settings(max_examples=30)
@given(secret=SECRETS, before=st.text(max_size=20), after=st.text(max_size=20))
def test_the_value_of_a_known_secret_is_found_anywhere(
    secret: str, before: str, after: str
) -> None:
    encoded = base64.b64encode(secret.encode()).decode()
    redaction = Redaction([{"kind": "Secret", "data": {"anything": encoded}}])
    for value in (secret, encoded):
        assert value not in redaction.text(f"{before} {value} {after}")
        told = redaction.object({"spec": {value: {"some": [value, f"x{value}y"]}}})
        assert value not in yaml.safe_dump(told, width=10_000)


def test_a_known_key_of_many_lines_is_found_line_by_line() -> None:
    lines = ["-----BEGIN PRIVATE KEY-----", "M" * 64, "N" * 64, "-----END PRIVATE KEY-----"]
    data = {"tls.key": base64.b64encode("\n".join(lines).encode()).decode()}
    redaction = Redaction([{"kind": "Secret", "data": data}])
    assert "N" * 64 not in redaction.text(f"the second line is {'N' * 64}")


@pytest.mark.parametrize(
    "item",
    [
        {"spec": {"origin": {"s3": {"credentialsSecretRef": {"name": "s3-credentials"}}}}},
        {"spec": {"tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}]}},
        {"spec": {"volumes": [{"secret": {"secretName": "tls"}}], "imagePullPolicy": "Always"}},
        {"spec": {"tokenSecretRef": {"name": "hub", "key": "token"}}},
        {"status": {"url": "http://gateway/team/models/iris?environment=production"}},
        {"status": {"origin": {"revision": "sha256:" + "0a" * 32}}},
        {"metadata": {"annotations": {"beamlit.com/version": "sha256:0123"}}},
        {"spec": {"containers": [{"args": ["--port=8080", "--max-model-len", "4096"]}]}},
        {"kind": "ConfigMap", "metadata": {"name": "beamlit-catalogue"}, "data": {"a": "b: c"}},
    ],
)
def test_what_is_no_secret_stays(item: dict[str, Any]) -> None:
    assert Redaction().object(item) == item


def test_a_field_that_is_on_or_off_stays_in_a_document() -> None:
    item = {"s3": {"nodeCredentials": False, "token": None, "uri": "s3://a/b"}, "secret": True}
    text = yaml.safe_dump(item)
    assert yaml.safe_load(Redaction().text(text)) == item
    assert Redaction().text('{"token":false,"x":1}') == '{"token":false,"x":1}'
    assert Redaction().text("password: falsehood") == "password: ***"


def test_of_a_secret_the_name_and_the_keys_stay() -> None:
    told = outline(
        {"kind": "Secret", "type": "Opaque", "metadata": {"name": "x"}, "data": {"b": "", "a": ""}}
    )
    assert told == {
        "kind": "Secret",
        "metadata": {"name": "x"},
        "type": "Opaque",
        "keys": ["a", "b"],
    }
