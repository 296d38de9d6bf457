"""Protobuf bodies, as kubectl sends them."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamlit_operator.devcluster.apiserver.protobuf import decode
from beamlit_operator.devcluster.apiserver.protobuf_table import messages, table
from beamlit_operator.kube import ApiError


def _text(number: int, value: bytes | str) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    assert len(raw) < 128
    return bytes([number << 3 | 2, len(raw)]) + raw


def _number(number: int, value: int) -> bytes:
    return bytes([number << 3, value])


def _body(api_version: str, kind: str, raw: bytes) -> bytes:
    return b"k8s\x00" + _text(1, _text(1, api_version) + _text(2, kind)) + _text(2, raw)


def test_a_namespace_as_kubectl_sends_it() -> None:
    sent = bytes.fromhex(
        "6b3873000a0f0a02763112094e616d657370616365121b0a130a036261721200"
        "1a0022002a0032003800420012001a020a001a002200"
    )
    item = decode(sent)
    assert (item["apiVersion"], item["kind"]) == ("v1", "Namespace")
    assert item["metadata"] == {"name": "bar", "generation": 0}


def test_embedded_structs_special_types_and_bytes() -> None:
    http = _text(1, "/healthz") + _text(2, _number(1, 0) + _number(2, 80))
    probe = _text(1, _text(2, http)) + _number(4, 0)
    volume = _text(1, "v") + _text(2, _text(2, b""))
    spec = _text(1, volume) + _text(2, _text(1, "c") + _text(11, probe))
    pod: Any = decode(_body("v1", "Pod", _text(2, spec)))
    assert pod["spec"]["volumes"] == [{"name": "v", "emptyDir": {}}]
    readiness = pod["spec"]["containers"][0]["readinessProbe"]
    assert readiness == {"httpGet": {"path": "/healthz", "port": 80}}
    pair = _text(1, "k") + _text(2, b"\x00\xff")
    secret = decode(_body("v1", "Secret", _text(2, pair)))
    assert secret["data"] == {"k": "AP8="}


@given(st.binary(max_size=60))
def test_nonsense_is_refused_and_nothing_else(noise: bytes) -> None:
    for body in (noise, b"k8s\x00" + noise, _body("v1", "Pod", noise)):
        with contextlib.suppress(ApiError):
            decode(body)


def test_custom_resources_have_no_protobuf() -> None:
    with pytest.raises(ApiError) as caught:
        decode(_body("example.com/v1", "Widget", b""))
    assert "send JSON" in caught.value.message


def test_the_table_is_made_from_proto_files() -> None:
    proto = """
    package k8s.io.api.core.v1;
    message Thing {
      // a comment
      optional string name = 1;
      repeated .k8s.io.apimachinery.pkg.apis.meta.v1.Time times = 2;
      map<string, bytes> data = 3;
      optional Other other = 4;
    }
    message Other {
      optional int64 n = 1;
    }
    message Unused {
    }
    """.replace("\n    ", "\n")
    assert set(messages(proto)) == {f"io.k8s.api.core.v1.{n}" for n in ("Thing", "Other", "Unused")}
    assert table([proto], ["io.k8s.api.core.v1.Thing"]) == (
        "io.k8s.api.core.v1.Other 1:n:i\n"
        "io.k8s.api.core.v1.Thing 1:name:s "
        "2:times:*io.k8s.apimachinery.pkg.apis.meta.v1.Time 3:data:%y "
        "4:other:io.k8s.api.core.v1.Other\n"
    )
