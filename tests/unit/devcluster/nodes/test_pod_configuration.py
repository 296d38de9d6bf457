"""What a container is started with: variables, paths, volumes, images. Pure decisions."""

from __future__ import annotations

from base64 import b64encode
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from beamlit_operator.devcluster.images.table import (
    ImageTable,
    InvalidImageError,
    TableError,
    UnknownImageError,
    normalized,
)
from beamlit_operator.devcluster.kubelet import volumes
from beamlit_operator.devcluster.kubelet.paths import PathMap
from beamlit_operator.devcluster.kubelet.variables import (
    ConfigError,
    Facts,
    environment,
    expand,
)
from beamlit_operator.devcluster.quantities import parse, rounded_up

POD: dict[str, Any] = {
    "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"app": "web"}},
    "spec": {"nodeName": "n", "containers": []},
}


def facts(**known: Any) -> Facts:
    return Facts(POD, "127.1.0.1", "127.0.0.1", **known)


def secret(**values: str) -> dict[str, Any]:
    return {"data": {key: b64encode(value.encode()).decode() for key, value in values.items()}}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$(A)/x", "1/x"),
        ("$(MISSING)", "$(MISSING)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("cost: 5$", "cost: 5$"),
        ("$(A", "$(A"),
    ],
)
def test_references_are_expanded_as_kubernetes_does(text: str, result: str) -> None:
    assert expand(text, {"A": "1"}) == result


def test_later_variables_win_and_see_earlier_ones() -> None:
    container = {
        "envFrom": [{"configMapRef": {"name": "m"}, "prefix": "P_"}],
        "env": [{"name": "A", "value": "$(P_X)!"}, {"name": "A", "value": "$(A)?"}],
    }
    known = facts(config_maps={"m": {"data": {"X": "x", "not a name!": "no"}}})
    values = environment(container, known, {"A": "image", "B": "image"})
    assert values == {"A": "x!?", "B": "image", "P_X": "x"}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "p"),
        ("metadata.labels['app']", "web"),
        ("metadata.annotations['none']", ""),
        ("status.podIP", "127.1.0.1"),
        ("spec.nodeName", "n"),
    ],
)
def test_fields_of_the_pod_can_be_read(path: str, value: str) -> None:
    container = {"env": [{"name": "V", "valueFrom": {"fieldRef": {"fieldPath": path}}}]}
    assert environment(container, facts(), {})["V"] == value


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"secretKeyRef": {"name": "s", "key": "k"}}, 'secret "s" not found'),
        ({"configMapKeyRef": {"name": "c", "key": "k"}}, 'configmap "c" not found'),
        (
            {"secretKeyRef": {"name": "there", "key": "k"}},
            "couldn't find key k in Secret ns/there",
        ),
        ({"fieldRef": {"fieldPath": "spec.secret"}}, "unsupported fieldPath: spec.secret"),
    ],
)
def test_what_is_missing_is_named_as_kubelet_does(source: Any, message: str) -> None:
    container = {"env": [{"name": "V", "valueFrom": source}]}
    with pytest.raises(ConfigError) as caught:
        environment(container, facts(secrets={"there": secret(other="x")}), {})
    assert str(caught.value) == message


def test_an_optional_reference_may_be_missing() -> None:
    reference = {"secretKeyRef": {"name": "s", "key": "k", "optional": True}}
    container = {
        "env": [{"name": "V", "valueFrom": reference}],
        "envFrom": [{"secretRef": {"name": "s", "optional": True}}],
    }
    assert environment(container, facts(), {}) == {}


def test_a_limit_that_is_not_set_is_what_the_node_has() -> None:
    reference = {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}
    container = {"name": "c", "env": [{"name": "V", "valueFrom": reference}]}
    assert environment(container, facts(node_allocatable={"memory": "1Gi"}), {})["V"] == "1024"


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("/mnt/models", "/host/m"),
        ("--dir=/mnt/models/a", "--dir=/host/m/a"),
        ("/mnt/models:/mnt/models/cache", "/host/m:/host/c"),
        ("file:///mnt/models/x", "file:///host/m/x"),
        ("s3://bucket/mnt/models", "s3://bucket/mnt/models"),
        ("/mnt/models-old", "/mnt/models-old"),
        ("/mnt/models.bak", "/mnt/models.bak"),
        ("/data/mnt/models", "/data/mnt/models"),
        ("see '/mnt/models'.", "see '/host/m'."),
    ],
)
def test_only_whole_mount_paths_are_rewritten(text: str, result: str) -> None:
    paths = PathMap([("/mnt/models", "/host/m"), ("/mnt/models/cache/", "/host/c")])
    assert paths.rewrite(text) == result


def test_every_mount_has_a_variable() -> None:
    paths = PathMap([("/a", "/x"), ("/b", "/y")])
    assert paths.variables() == {"BEAMLIT_MOUNT_0": "/x", "BEAMLIT_MOUNT_1": "/y"}
    assert PathMap([]).rewrite("/a") == "/a"


def pod_with(volume: dict[str, Any]) -> dict[str, Any]:
    return {**POD, "spec": {"volumes": [{"name": "v", **volume}]}}


def test_a_volume_follows_its_secret(tmp_path: Path) -> None:
    body = pod_with({"secret": {"secretName": "s", "items": [{"key": "a", "path": "d/a"}]}})
    for text in ("one", "two"):
        known = facts(secrets={"s": secret(a=text, b="x")})
        folder = volumes.set_up(body, tmp_path, known)["v"]
        assert (folder / "d" / "a").read_text() == text
    assert not (folder / "b").exists()


def test_a_key_that_disappears_takes_its_file_along(tmp_path: Path) -> None:
    body = pod_with({"configMap": {"name": "m"}})
    volumes.set_up(body, tmp_path, facts(config_maps={"m": {"data": {"a": "1", "b": "2"}}}))
    folder = volumes.set_up(body, tmp_path, facts(config_maps={"m": {"data": {"b": "2"}}}))["v"]
    assert [path.name for path in folder.iterdir()] == ["b"]


def test_an_empty_dir_keeps_what_is_in_it(tmp_path: Path) -> None:
    folder = volumes.set_up(pod_with({"emptyDir": {}}), tmp_path, facts())["v"]
    (folder / "file").write_text("x")
    volumes.set_up(pod_with({"emptyDir": {}}), tmp_path, facts())
    assert (folder / "file").read_text() == "x"


def test_a_projected_volume_gathers_its_sources(tmp_path: Path) -> None:
    field = {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}
    sources = [
        {"secret": {"name": "s"}},
        {"configMap": {"name": "m", "optional": True}},
        {"downwardAPI": {"items": [field]}},
    ]
    body = pod_with({"projected": {"sources": sources}})
    folder = volumes.set_up(body, tmp_path, facts(secrets={"s": secret(a="1")}))["v"]
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"a": "1", "name": "p"}


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        ({"secret": {"secretName": "s"}}, 'secret "s" not found'),
        ({"configMap": {"name": "m"}}, 'configmap "m" not found'),
        ({"nfs": {"server": "x", "path": "/"}}, "the embedded cluster has no nfs volumes"),
        (
            {"projected": {"sources": [{"clusterTrustBundle": {"path": "t"}}]}},
            "cannot project clusterTrustBundle",
        ),
        (
            {
                "downwardAPI": {
                    "items": [{"path": "../x", "fieldRef": {"fieldPath": "metadata.name"}}]
                }
            },
            "must stay inside the volume",
        ),
    ],
)
def test_a_volume_that_cannot_be_set_up_says_why(
    tmp_path: Path, volume: dict[str, Any], message: str
) -> None:
    with pytest.raises(volumes.VolumeError, match=r'failed for volume "v" : ') as caught:
        volumes.set_up(pod_with(volume), tmp_path, facts())
    assert message in str(caught.value)


def test_a_sub_path_must_stay_inside() -> None:
    part = {"name": "v", "mountPath": "/x", "subPath": "../../etc"}
    mount = {"name": "c", "volumeMounts": [part]}
    with pytest.raises(ConfigError, match="must stay inside"):
        volumes.mounts_of(mount, {"v": Path("/tmp/v")}, {})


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("nginx", "docker.io/library/nginx"),
        ("seldonio/mlserver:1.7.1", "docker.io/seldonio/mlserver"),
        ("ghcr.io/beamlit/x@sha256:" + "0" * 64, "ghcr.io/beamlit/x"),
        ("localhost:5000/a/b:t", "localhost:5000/a/b"),
    ],
)
def test_image_names_are_completed(reference: str, name: str) -> None:
    assert normalized(reference) == name


@pytest.mark.parametrize("reference", ["", "UPPER/case", "a b", "x:", "http://x/y"])
def test_what_is_not_an_image_name_is_refused(reference: str) -> None:
    with pytest.raises(InvalidImageError):
        normalized(reference)


def test_the_users_table_comes_first_and_the_built_in_one_still_counts(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("images: [{image: 'docker.io/library/*', kind: host, command: [sleep]}]")
    table = ImageTable(own)
    assert table.find("busybox:1").command == ("sleep",)
    assert table.find("seldonio/mlserver:1.7.1").kind == "venv"
    with pytest.raises(UnknownImageError, match=r"example\.com/x"):
        table.find("example.com/x:1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("images: [{image: x, kind: docker}]", r"images\[0\]\.kind: must be host or venv"),
        ("images: [{image: x, kind: venv}]", r"images\[0\]\.requirements"),
        ("images: [{kind: host}]", r"images\[0\]: needs a key image"),
        ("images: [{image: x, kind: host, oops: 1}]", "unknown key oops"),
        ("a: b", "expected a list under the key images"),
    ],
)
def test_a_wrong_table_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "table.yaml"
    path.write_text(text)
    with pytest.raises(TableError, match=message):
        ImageTable(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("500m", Fraction(1, 2)),
        ("2", 2),
        ("1Gi", 1024**3),
        ("1e3", 1000),
        ("1.5M", 1_500_000),
        ("1E", 10**18),
        (".5", Fraction(1, 2)),
    ],
)
def test_quantities_are_exact(text: str, value: Any) -> None:
    assert parse(text) == value


@pytest.mark.parametrize("text", ["", "lots", "1 Gi", "m", "1KB"])
def test_what_is_not_a_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        parse(text)


def test_amounts_are_rounded_up() -> None:
    assert rounded_up(parse("1500m")) == 2
    assert rounded_up(parse("1Gi"), "1Mi") == 1024
