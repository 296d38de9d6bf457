"""``beamlit runtimes``: which table it shows, and from where."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.fakekube import FakeKube

from beamlit_operator.cli import runtimes
from beamlit_operator.cli.main import main
from beamlit_operator.kube import CONFIG_MAPS, ApiError, Json, Resource
from beamlit_operator.kube.client import ListResult
from beamlit_operator.workloads.presets import BUILT_IN, extended, presets


def config_map(name: str, **rows: str) -> Json:
    labels = {"beamlit.com/runtimes": "true"}
    metadata = {"name": name, "namespace": "beamlit-system", "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": rows}


def written(folder: Path, *bodies: Json) -> str:
    file = folder / "runtimes.yaml"
    file.write_text(yaml.safe_dump_all(bodies))
    return str(file)


def test_the_table_says_where_each_row_comes_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unlabelled = config_map("other", tei="port: 1")
    del unlabelled["metadata"]["labels"]
    own = config_map("own", vllm="image: registry.example/vllm:2", mine="image: mine:1")
    assert main(["runtimes", "-f", written(tmp_path, own, unlabelled)]) == 0
    lines = capsys.readouterr().out.splitlines()
    header = "TYPE IMAGE IMAGE WITH GPU PORT METRICS PROTOCOL FROM"
    assert " ".join(lines[0].split()) == header
    by_type = {line.split()[0]: line.split() for line in lines[1:]}
    assert set(by_type) == {*presets(), "mine"}
    assert by_type["vllm"][1] == "registry.example/vllm:2"
    assert by_type["vllm"][-2:] == ["built-in,", "own"]
    assert by_type["mine"][-1] == "own"
    assert by_type["tei"][-1] == BUILT_IN


def test_a_row_that_cannot_be_used_is_said_and_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["runtimes", "-f", written(tmp_path, config_map("own", vllm="port: x"))]) == 1
    said = capsys.readouterr()
    assert "beamlit: ConfigMap own, key vllm: port: Input should be a valid integer" in said.err
    assert "vllm" in said.out


def test_data_that_is_no_text_is_bad_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad: dict[str, Any] = config_map("own")
    bad["data"] = {"mine": {"image": "x"}}
    assert main(["runtimes", "-f", written(tmp_path, bad)]) == 2
    assert "data must hold texts" in capsys.readouterr().err


def test_what_is_printed_as_json_can_be_written_into_a_config_map(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = config_map("own")
    assert main(["runtimes", "-o", "json", "-f", written(tmp_path, empty)]) == 0
    rows = json.loads(capsys.readouterr().out)
    data = {}
    for row in rows:
        kind = row.pop("type")
        assert row.pop("from") == [BUILT_IN]
        data[f"{kind}-again"] = yaml.safe_dump(row)
    table = extended({"own": data})
    assert not table.problems
    for name, preset in presets().items():
        again = table.presets[f"{name}-again"]
        assert (again.image, again.args, again.env, again.args_from_model) == (
            preset.image,
            preset.args,
            preset.env,
            preset.args_from_model,
        )


async def test_a_clusters_table_has_its_labelled_config_maps() -> None:
    client = FakeKube()
    await client.create(CONFIG_MAPS, config_map("own", mine="image: mine:1"), "beamlit-system")
    elsewhere = config_map("elsewhere", other="image: other:1")
    elsewhere["metadata"]["namespace"] = "team"
    await client.create(CONFIG_MAPS, elsewhere, "team")
    table = await runtimes.from_cluster(client)
    assert set(table.presets) == {*presets(), "mine"}


class Forbidding(FakeKube):
    """Lets nobody list ConfigMaps."""

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        each: Callable[[Json], Json] | None = None,
    ) -> ListResult:
        raise ApiError(403, "Forbidden", "configmaps is forbidden")


async def test_a_cluster_that_lets_nobody_read_them_shows_the_built_in_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert (await runtimes.from_cluster(Forbidding())).presets == presets()
    assert "the ConfigMaps in beamlit-system may not be read" in capsys.readouterr().err


def test_without_a_cluster_the_built_in_ones_are_shown_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["runtimes"]) == 0
    said = capsys.readouterr()
    assert {line.split()[0] for line in said.out.splitlines()[1:]} == set(presets())
    assert "no cluster is named, so only the built-in rows are shown" in said.err


def test_a_cluster_that_is_named_and_not_there_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["runtimes", "--kubeconfig", str(tmp_path / "none")]) == 1
    said = capsys.readouterr()
    assert (said.out, "does not exist" in said.err) == ("", True)
