"""What people are told who wrote a text in the wrong form: how it is written, and no pattern."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from beamlit_operator.api import labels
from beamlit_operator.api.crd import KINDS, Schema, crd
from beamlit_operator.devcluster.apiserver.cel import rule_causes
from beamlit_operator.devcluster.apiserver.schemas import custom_root
from beamlit_operator.devcluster.apiserver.validating import causes_of, custom_checker

SCHEMAS = {
    kind.name: crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for kind in KINDS
}
CHECKED = {name: (custom_root(each), custom_checker(each)) for name, each in SCHEMAS.items()}


def complaints(kind: str, spec: dict[str, Any]) -> list[Any]:
    """What an API server has against an object of this kind."""
    root, checker = CHECKED[kind]
    item = {
        "apiVersion": labels.API_VERSION,
        "kind": kind,
        "metadata": {"name": "llama"},
        "spec": spec,
    }
    return [*causes_of(checker, item), *rule_causes(item, None, root)]


def patterns(schema: Schema, path: str) -> Iterator[str]:
    """The texts whose refusal would show a pattern."""
    if "pattern" in schema and not schema.get("x-kubernetes-int-or-string"):
        yield path
    for name, child in schema.get("properties", {}).items():
        yield from patterns(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from patterns(schema[key], f"{path}[]")


@pytest.mark.parametrize("kind", SCHEMAS)
def test_nobody_has_to_read_a_pattern(kind: str) -> None:
    assert list(patterns(SCHEMAS[kind]["properties"]["spec"], "spec")) == []


def origin(name: str, **fields: Any) -> dict[str, Any]:
    return {"origin": {name: fields}}


def file(**fields: Any) -> dict[str, Any]:
    return origin("http", files=[{"url": "https://a.example/b", "sha256": "a" * 64} | fields])


def served(**fields: Any) -> dict[str, Any]:
    return {"model": "llama", "environment": "production", **fields}


WRONG = [
    ("Model", origin("s3", uri="https://models/iris"), "s3.uri", "write s3://BUCKET/PREFIX"),
    ("Model", origin("s3", uri="s3://Models/iris"), "s3.uri", "lower-case letters"),
    ("Model", origin("s3", uri="s3://a/b"), "s3.uri", "3 to 63"),
    (
        "Model",
        origin("s3", uri="s3://models", endpoint="minio:9000"),
        "s3.endpoint",
        "https://minio.example.com:9000",
    ),
    (
        "Model",
        origin("s3", uri="s3://models", endpoint="https://minio/models"),
        "s3.endpoint",
        "without a path",
    ),
    (
        "Model",
        origin("s3", uri="s3://models", credentialsSecretRef={"name": "My Keys"}),
        "s3.credentialsSecretRef.name",
        "write an object's name",
    ),
    (
        "Model",
        origin("huggingFace", repo="https://huggingface.co/org/a"),
        "huggingFace.repo",
        "write ORG/NAME",
    ),
    (
        "Model",
        origin("huggingFace", repo="org/a", endpoint="hub.example.com"),
        "huggingFace.endpoint",
        "with its scheme",
    ),
    ("Model", file(sha256=f"sha256:{'a' * 64}"), "http.files[0].sha256", "without 'sha256:'"),
    ("Model", file(sha256="a" * 63), "http.files[0].sha256", "write 64 hexadecimal digits"),
    ("Model", file(url="https://u:p@a.example/b"), "http.files[0].url", "credentialsSecretRef"),
    ("Model", file(path="../b"), "http.files[0].path", "without . and .."),
    ("Model", origin("oci", reference="oci://a/b:c"), "oci.reference", "without oci://"),
    ("Model", origin("pvc", claimName="a", path="/models"), "pvc.path", "a relative path"),
    ("Model", {"runtime": {"type": "vLLM"}}, "runtime.type", "`beamlit runtimes` lists them"),
    ("ModelDeployment", served(environment="Staging"), "environment", "lower-case letters"),
    (
        "ModelDeployment",
        served(
            serverlessConfig={
                "minNumReplicas": 0,
                "maxNumReplicas": 1,
                "stableWindow": "6 seconds",
            }
        ),
        "serverlessConfig.stableWindow",
        "such as 90s or 1m30s",
    ),
    (
        "ModelDeployment",
        served(flavors=[{"type": "gpu", "name": "NVIDIA T4"}]),
        "flavors[0].name",
        "t4, h100 or x86",
    ),
    (
        "Policy",
        {"type": "location", "locations": [{"type": "location", "name": "us east"}]},
        "locations[0].name",
        "us-east-1",
    ),
]


@pytest.mark.parametrize(("kind", "spec", "field", "words"), WRONG)
def test_what_is_wrong_with_a_text_is_said_in_one_sentence(
    kind: str, spec: dict[str, Any], field: str, words: str
) -> None:
    (cause,) = complaints(kind, spec)
    assert cause.field in (f"spec.{field}", f"spec.origin.{field}")
    assert words in cause.message


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("Model", origin("s3", uri="s3://models/a b/{c}", endpoint="http://minio:9000/")),
        ("Model", origin("huggingFace", repo="org/a.b-c_d", endpoint="https://hub/path")),
        ("Model", file(sha256="A" * 64, path="a/.b/..c")),
        ("Model", origin("oci", reference="a:5000/b/c:v1@sha256:" + "0" * 64, path="")),
        ("ModelDeployment", served(rollout={"strategy": "BlueGreen", "retention": "1m30.5s"})),
    ],
)
def test_what_was_right_before_is_right(kind: str, spec: dict[str, Any]) -> None:
    assert complaints(kind, spec) == []
