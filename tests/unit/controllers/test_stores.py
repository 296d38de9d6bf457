"""What a Model's origin becomes: a reference, a Secret, and the arguments of a fetch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.support.fakekube import FakeKube

from beamlit_operator.api import Model, Reason
from beamlit_operator.api.crd import structural
from beamlit_operator.api.model import ModelSpec, Origin
from beamlit_operator.controllers.credentials import (
    HTTP_KEYS,
    SecretProblemError,
    SecretUse,
    read_credentials,
)
from beamlit_operator.controllers.stores import field_of, model_files, own_secret, reference
from beamlit_operator.devcluster.kubelet.variables import expand
from beamlit_operator.kube import SECRETS, ObjectKey
from beamlit_operator.origins import ClaimRef, OriginError, OriginRef
from beamlit_operator.origins.__main__ import reference_of
from beamlit_operator.origins.kinds import kind_of

DIGEST = "ab" * 32
HTTP = {
    "files": [
        {"url": "https://example.com/m/model.gguf?sig=$(BEAMLIT_HTTP_TOKEN)", "sha256": DIGEST},
        {
            "url": "http://other.example.com/c",
            "sha256": DIGEST.upper(),
            "path": "-my configs/config.json",
        },
    ],
    "credentialsSecretRef": {"name": "web"},
}
S3 = {"uri": "s3://models/iris", "endpoint": "https://minio.example.com", "region": "eu-west-1"}
LEAKING = {
    "uri": "s3://models/$(AWS_SECRET_ACCESS_KEY)/$$(AWS_SECRET_ACCESS_KEY)/$x$$y",
    "credentialsSecretRef": {"name": "store"},
}
HUB = {"repo": "org/m", "revision": "v1", "allowPatterns": ["*.json"], "ignorePatterns": ["x*"]}


def referred(**origin: Any) -> tuple[Origin, OriginRef]:
    spec = Origin.model_validate(origin)
    ref = reference(spec)
    assert ref is not None
    return spec, ref


@pytest.mark.parametrize(
    ("origin", "revision"),
    [
        ({"http": HTTP}, "sha256:" + "0" * 64),
        ({"s3": S3}, "sha256:" + "0" * 64),
        ({"s3": S3 | LEAKING}, "sha256:" + "0" * 64),
        ({"huggingFace": HUB}, "0" * 40),
        ({"pvc": {"claimName": "weights", "path": "a b/c"}}, "sha256:" + "0" * 64),
    ],
)
def test_a_pod_fetches_what_the_operator_looked_at(origin: dict[str, Any], revision: str) -> None:
    spec, ref = referred(**origin)
    secret = own_secret(spec)
    files = model_files(
        ref, revision=revision, paths=(), size=0, model=ModelSpec(unpack=True), secret=secret
    )
    assert "--unpack" in files.fetch_arguments()
    assert "--unpack" not in replace(files, unpack=False).fetch_arguments()
    variables = {each.name: f"value of {each.key}" for each in files.secrets}
    # As the kubelet does it: nothing that a Model says becomes a Secret's content.
    command, *arguments = (expand(each, variables) for each in files.fetch_arguments())
    assert command == "fetch"
    fetched = reference_of(arguments, files.plain_variables())
    assert fetched.at(revision) == ref.at(revision)
    assert fetched.identity(revision) == ref.identity(revision)
    assert bool(kind_of(ref).credentials(variables)) == bool(secret)


def test_an_origin_of_a_kind_that_is_not_known_is_none() -> None:
    assert reference(Origin.model_validate({"ftp": {"host": "x"}})) is None


def test_a_version_of_a_claims_files_is_a_text_or_the_digest_they_must_have() -> None:
    origin = Origin.model_validate({"pvc": {"claimName": "weights", "revision": "1"}})
    own, other, pinned = (
        reference(origin, revision=version) for version in (None, "2", "sha256:" + "a" * 64)
    )
    assert isinstance(own, ClaimRef)
    assert isinstance(other, ClaimRef)
    assert isinstance(pinned, ClaimRef)
    assert own.digest("uid") != other.digest("uid")
    assert own.digest("uid") == pinned.digest("uid")
    assert own.digest("uid") != own.digest("another")
    assert (own.keeps_revisions, other.keeps_revisions, pinned.keeps_revisions) == (
        *(True, True, False),
    )


def test_files_of_one_place_are_refused() -> None:
    files = [{"url": f"https://{host}/model.gguf", "sha256": DIGEST} for host in ("a", "b")]
    with pytest.raises(OriginError, match=r"'model\.gguf' .* exists twice: correct the path"):
        referred(http={"files": files})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"token": "dA=="}, None),
        ({"username": "dA==", "password": "dA=="}, None),
        ({"username": "dA=="}, "has neither token nor username and password"),
        ({}, "has neither token nor username and password"),
        ({"token": "?"}, "is not base64"),
    ],
)
async def test_a_secret_of_web_servers_has_a_token_or_a_name(
    data: dict[str, str], words: str | None
) -> None:
    kube = FakeKube()
    metadata = {"name": "web", "namespace": "team"}
    await kube.put(
        SECRETS, {"apiVersion": "v1", "kind": "Secret", "metadata": metadata} | {"data": data}
    )
    key = ObjectKey("team", SecretUse("web").name)
    if words is None:
        assert set((await read_credentials(kube, key, HTTP_KEYS)).values) == set(data)
    else:
        with pytest.raises(SecretProblemError, match=words):
            await read_credentials(kube, key, HTTP_KEYS)


@pytest.mark.parametrize(
    ("origin", "reason", "field"),
    [
        ({"huggingFace": HUB}, Reason.SECRET_NOT_FOUND, "huggingFace.tokenSecretRef"),
        ({"s3": S3}, Reason.SECRET_NOT_FOUND, "s3.credentialsSecretRef"),
        ({"s3": S3}, Reason.CONFIG_MAP_NOT_FOUND, "s3.caConfigMapRef"),
        ({"s3": S3}, Reason.SERVICE_ACCOUNT_NOT_USABLE, "s3.webIdentity"),
        ({"http": HTTP}, Reason.SECRET_NOT_FOUND, "http.credentialsSecretRef"),
        ({"http": HTTP}, Reason.CONFIG_MAP_NOT_FOUND, "http.caConfigMapRef"),
        ({"oci": {"reference": "a.example/b:c"}}, Reason.SECRET_NOT_FOUND, "oci.pullSecretRef"),
        ({"pvc": {"claimName": "weights"}}, Reason.CLAIM_NOT_FOUND, "pvc.claimName"),
        ({"pvc": {"claimName": "weights"}}, Reason.CLAIM_NOT_USABLE, "pvc.claimName"),
    ],
)
def test_the_field_that_names_what_is_missing_is_one_of_the_definition(
    origin: Any, reason: Reason, field: str
) -> None:
    named = field_of(referred(**origin)[1], reason)
    assert named == f"spec.origin.{field}"
    schema = structural(Model)
    for part in named.split("."):
        schema = schema["properties"][part]
