"""The programs that stand for images' own: what they make of a command line."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml

from beamlit_operator.devcluster.images import ImageTable
from beamlit_operator.devcluster.images.store import Program
from beamlit_operator.devcluster.images.table import BUILT_IN
from beamlit_operator.workloads.runtimes import presets

POD = "127.0.5.9"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BUILT_IN.parent / "programs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


llama_server, tritonserver = load("llama_server"), load("tritonserver")


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names of llama.cpp's library that the program uses."""

    def parameters() -> Any:
        model, threads = SimpleNamespace(path=""), SimpleNamespace(n_threads=-1)
        return SimpleNamespace(model=model, cpuparams=threads, endpoint_slots=True, n_ctx=0)

    names = SimpleNamespace(CommonParams=parameters, llama_pooling_type=lambda number: number)
    monkeypatch.setitem(sys.modules, "xllamacpp", names)  # type: ignore[arg-type]


def parameters(*arguments: str, address: str = POD, **environment: str) -> Any:
    return llama_server.parameters(llama_server.read(arguments, environment), address)


@pytest.mark.usefixtures("library")
def test_the_presets_own_command_line_is_understood_and_listens_on_the_pods_address() -> None:
    preset = presets()["llamacpp"]
    values = {"{port}": "8080", "{gguf}": "/m/a.gguf", "{model}": "tiny"}
    found = parameters(*(values.get(argument, argument) for argument in preset.args))
    assert (found.hostnames, found.port) == ([POD], 8080)
    assert (found.model.path, found.model_alias) == ("/m/a.gguf", {"tiny"})
    assert found.endpoint_metrics is True


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    ("arguments", "environment", "name", "value"),
    [
        (["-c", "512"], {}, "n_ctx", 512),
        ([], {"LLAMA_ARG_CTX_SIZE": "512"}, "n_ctx", 512),
        (["-c", "64"], {"LLAMA_ARG_CTX_SIZE": "512"}, "n_ctx", 64),
        (["--embeddings"], {}, "embedding", True),
        ([], {"LLAMA_ARG_EMBEDDINGS": "1"}, "embedding", True),
        (["--reranking"], {}, "pooling_type", 4),
        (["--reranking"], {}, "embedding", True),
        (["--no-slots"], {}, "endpoint_slots", False),
        (["--pooling", "cls"], {}, "pooling_type", 2),
        (["--api-key", "a,b"], {}, "api_keys", ["a", "b"]),
        (["--host", "127.0.0.1"], {}, "hostnames", ["127.0.0.1"]),
    ],
)
def test_what_is_said_reaches_the_library(
    arguments: list[str], environment: dict[str, str], name: str, value: object
) -> None:
    found = parameters("-m", "a.gguf", *arguments, **environment)
    assert getattr(found, name) == value


@pytest.mark.parametrize(
    "arguments", [["-m", "a.gguf", "--lora", "b"], ["--port", "1"], ["-m", "a", "--ctx-size", "x"]]
)
def test_what_is_not_understood_ends_the_program(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        llama_server.read(arguments, {})
    assert "llama-server: error:" in capsys.readouterr().err


def test_triton_listens_on_the_pods_address_unless_the_pod_says_where() -> None:
    *added, memory = tritonserver.options(["--http-port=1", "--grpc-address=::1"], POD, Path("/b"))
    assert added == [
        f"--http-address={POD}",
        f"--metrics-address={POD}",
        "--backend-directory=/b",
    ]
    assert memory.endswith(f"=beamlit-triton-{os.getpid()}-")
    assert tritonserver.options(["--backend-directory=/x"], "", Path("/b")) == [memory]


def test_the_shared_memory_of_a_triton_that_was_killed_is_removed_by_the_next(
    tmp_path: Path,
) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    own, others = f"beamlit-triton-{os.getpid()}-a", "envoy_shared_memory_0"
    for name in (own, others, f"beamlit-triton-{gone.pid}-b", "beamlit-triton-x"):
        (tmp_path / name).touch()
    tritonserver.tidy(tmp_path)
    assert {each.name for each in tmp_path.iterdir()} == {own, others, "beamlit-triton-x"}


def test_a_program_of_the_table_is_run_by_the_environments_own_python() -> None:
    image = ImageTable().find("ghcr.io/ggml-org/llama.cpp:server")
    program = Program(image, Path("/venv/bin"), "venv://x")
    file = str(BUILT_IN.parent / "programs" / "llama_server.py")
    assert program.line(["/app/llama-server", "--port", "1"]) == (
        *("/venv/bin/python", file),
        *("--port", "1"),
    )
    assert program.line(["sh", "-c", "true"]) == ("sh", "-c", "true")
    # A shell finds it by its name, and the file by this.
    assert program.places() == {"BEAMLIT_PROGRAM_LLAMA_SERVER": file}


def test_every_program_and_list_of_packages_in_the_table_exists() -> None:
    for row in yaml.safe_load(BUILT_IN.read_text())["images"]:
        names = [*row.get("programs", {}).values(), *filter(None, [row.get("requirements")])]
        for name in names:
            assert (BUILT_IN.parent / name).is_file(), name
