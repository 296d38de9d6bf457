"""Fetching, as the init container does it: the command, against real servers."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tests.support.hub import HubServer

from beamlit_operator.origins import HubRef, OriginReason, S3Ref, resolve
from beamlit_operator.origins.__main__ import main

from .conftest import KEYS

LARGE = os.urandom(40 * 2**20)  # three ranges


@pytest.fixture
def environment(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("AWS_REGION", "us-east-1")


@pytest.fixture
def hub_environment(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return hub


def visible(directory: Path) -> dict[str, bytes]:
    """The model's files in ``directory``: all but the fetcher's own records."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.relative_to(directory).parts[0] != ".beamlit"
    }


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"still waiting for {what}"
        time.sleep(0.01)


@pytest.mark.usefixtures("environment")
class TestS3:
    async def test_the_resolved_revision_is_fetched(
        self, s3: Any, s3_endpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        s3.put_object(Bucket="models", Key="iris/model.ubj", Body=b"weights")
        s3.put_object(Bucket="models", Key="iris/conf/settings.json", Body=b"{}")
        s3.put_object(Bucket="models", Key="iris/empty", Body=b"")
        found = await resolve(S3Ref("models", "iris", endpoint=s3_endpoint), KEYS)

        assert main(["s3://models/iris", str(tmp_path / "m"), "--revision", found.revision]) == 0

        assert visible(tmp_path / "m") == {
            "model.ubj": b"weights",
            "conf/settings.json": b"{}",
            "empty": b"",
        }
        last = capsys.readouterr().err.splitlines()[-1]
        assert "3 files, 9 bytes" in last
        assert "seconds" in last

    def test_a_pickle_is_fetched_with_leave_only(
        self, s3: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        s3.put_object(Bucket="models", Key="iris/model.joblib", Body=b"weights")
        command = ["s3://models/iris", str(tmp_path)]
        assert main(command) == 1
        assert "PickleNotAllowed" in capsys.readouterr().err
        assert visible(tmp_path) == {}
        assert main([*command, "--allow-pickle"]) == 0
        assert visible(tmp_path) == {"model.joblib": b"weights"}

    def test_pickles_are_left_out_beside_weights_of_another_form(
        self, s3: Any, tmp_path: Path
    ) -> None:
        s3.put_object(Bucket="models", Key="m/model.safetensors", Body=b"weights")
        s3.put_object(Bucket="models", Key="m/pytorch_model.bin", Body=b"pickle")
        assert main(["s3://models/m", str(tmp_path)]) == 0
        assert visible(tmp_path) == {"model.safetensors": b"weights"}

    def test_a_pickle_by_another_name_is_never_published(
        self, s3: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        body = pickle.dumps({"weights": 1})
        s3.put_object(Bucket="models", Key="m/model.safetensors", Body=body)
        assert main(["s3://models/m", str(tmp_path)]) == 1
        assert "'model.safetensors' can run code" in capsys.readouterr().err
        assert visible(tmp_path) == {}

    @pytest.mark.parametrize("flags", [[], ["--shared"]])
    def test_a_start_that_finds_its_files_imports_no_network_and_no_loop(
        self, s3: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str]
    ) -> None:
        s3.put_object(Bucket="models", Key="iris/model.ubj", Body=b"weights")
        command = ["s3://models/iris", str(tmp_path / "m"), *flags]
        assert main(command) == 0
        revision = capsys.readouterr().err.rsplit(" at ", 1)[1].split()[0]
        code = (
            "import sys; from beamlit_operator.origins.__main__ import main\n"
            f"assert main({[*command, '--revision', revision]!r}) == 0\n"
            "heavy = {'asyncio', 'ssl', 'socket', 'logging', 'pickletools', 'botocore'}\n"
            "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        )
        ran = subprocess.run(
            [sys.executable, "-c", code], check=False, capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stderr
        assert "nothing to fetch" in ran.stderr

    def test_a_large_object_arrives_in_ranges_and_whole(self, s3: Any, tmp_path: Path) -> None:
        s3.put_object(Bucket="models", Key="big/model.bin", Body=LARGE)
        assert main(["s3://models/big", str(tmp_path)]) == 0
        assert visible(tmp_path) == {"model.bin": LARGE}

    def test_a_multipart_upload_arrives_whole(self, s3: Any, tmp_path: Path) -> None:
        key = {"Bucket": "models", "Key": "big/model.bin"}
        upload = s3.create_multipart_upload(**key)["UploadId"]
        parts = []
        for number, start in enumerate(range(0, len(LARGE), 20 * 2**20), start=1):
            body = LARGE[start : start + 20 * 2**20]
            part = s3.upload_part(**key, UploadId=upload, PartNumber=number, Body=body)
            parts.append({"PartNumber": number, "ETag": part["ETag"]})
        s3.complete_multipart_upload(**key, UploadId=upload, MultipartUpload={"Parts": parts})

        assert main(["s3://models/big", str(tmp_path)]) == 0
        assert visible(tmp_path) == {"model.bin": LARGE}

    async def test_what_is_there_already_is_not_fetched_again(
        self, s3: Any, s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        s3.put_object(Bucket="models", Key="iris/a", Body=b"1")
        found = await resolve(S3Ref("models", "iris", endpoint=s3_endpoint), KEYS)
        arguments = ["s3://models/iris", str(tmp_path), "--revision", found.revision]
        assert main(arguments) == 0
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")  # nobody is asked
        assert main(arguments) == 0

    async def test_an_object_changed_since_it_was_resolved_is_refused(
        self, s3: Any, s3_endpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        s3.put_object(Bucket="models", Key="iris/a", Body=b"1")
        found = await resolve(S3Ref("models", "iris", endpoint=s3_endpoint), KEYS)
        s3.put_object(Bucket="models", Key="iris/a", Body=b"2")
        assert main(["s3://models/iris", str(tmp_path), "--revision", found.revision]) == 1
        assert visible(tmp_path) == {}
        assert f"{OriginReason.CHANGED}: " in capsys.readouterr().err

    def test_a_new_revision_replaces_the_files_of_the_old_one(
        self, s3: Any, tmp_path: Path
    ) -> None:
        s3.put_object(Bucket="models", Key="iris/old/a", Body=b"1")
        s3.put_object(Bucket="models", Key="iris/both", Body=b"1")
        assert main(["s3://models/iris", str(tmp_path)]) == 0
        s3.delete_object(Bucket="models", Key="iris/old/a")
        s3.put_object(Bucket="models", Key="iris/both", Body=b"2")
        s3.put_object(Bucket="models", Key="iris/old", Body=b"now a file")
        assert main(["s3://models/iris", str(tmp_path)]) == 0
        assert visible(tmp_path) == {"both": b"2", "old": b"now a file"}

    def test_a_wrong_bucket_ends_with_one_line(
        self, s3: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["s3://missing/iris", str(tmp_path)]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("beamlit fetch: BucketNotFound: bucket 'missing' does not exist")

    def test_a_full_disk_is_seen_before_the_fetch(
        self,
        s3: Any,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        s3.put_object(Bucket="models", Key="iris/a", Body=b"1")
        monkeypatch.setattr("shutil.disk_usage", lambda path: Full)
        assert main(["s3://models/iris", str(tmp_path)]) == 1
        assert "LocalDisk" in capsys.readouterr().err

    def test_a_directory_that_cannot_be_made_is_reported(
        self, s3: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        s3.put_object(Bucket="models", Key="iris/a", Body=b"1")
        (tmp_path / "file").write_text("")
        assert main(["s3://models/iris", str(tmp_path / "file")]) == 1
        assert "LocalDisk" in capsys.readouterr().err

    def test_a_link_that_leads_out_of_the_directory_is_not_followed(
        self, s3: Any, tmp_path: Path
    ) -> None:
        s3.put_object(Bucket="models", Key="iris/sub/a", Body=b"1")
        (tmp_path / "outside").mkdir()
        (tmp_path / "m").mkdir()
        (tmp_path / "m" / "sub").symlink_to(tmp_path / "outside")
        assert main(["s3://models/iris", str(tmp_path / "m")]) == 1
        assert list((tmp_path / "outside").iterdir()) == []

    def test_a_killed_fetch_publishes_nothing_and_the_next_completes(
        self, s3: Any, tmp_path: Path
    ) -> None:
        for number in range(4):
            s3.put_object(Bucket="models", Key=f"big/{number}", Body=LARGE)
        command = [sys.executable, "-m", "beamlit_operator.origins", "s3://models/big"]
        with subprocess.Popen([*command, str(tmp_path)], stderr=subprocess.PIPE) as process:
            wait_for(lambda: any(tmp_path.rglob("*.done")), "the first finished range")
            process.send_signal(signal.SIGKILL)
        assert visible(tmp_path) == {}
        assert main(["s3://models/big", str(tmp_path)]) == 0
        assert visible(tmp_path) == {str(number): LARGE for number in range(4)}


class Full:
    free = 0


class TestHub:
    FILES: ClassVar[dict[str, bytes]] = {
        "config.json": b"{}",
        "weights/model.safetensors": os.urandom(300_000),
    }

    async def test_the_resolved_commit_is_fetched(
        self, hub_environment: HubServer, tmp_path: Path
    ) -> None:
        hub = hub_environment
        hub.add("org/model", self.FILES)
        found = await resolve(HubRef("org/model", endpoint=hub.endpoint), {})
        hub.add("org/model", {"config.json": b"newer"})
        target = tmp_path / "m"
        assert main(["hf://org/model", str(target), "--revision", found.revision]) == 0
        assert visible(target) == self.FILES

    def test_patterns_choose_the_files(self, hub_environment: HubServer, tmp_path: Path) -> None:
        hub_environment.add("org/model", self.FILES)
        target = str(tmp_path / "m")
        assert main(["hf://org/model@main", target, "--allow-pattern", "*.json"]) == 0
        assert visible(tmp_path / "m") == {"config.json": b"{}"}
        assert main(["hf://org/model@main", target]) == 0
        assert visible(tmp_path / "m") == self.FILES

    def test_a_transfer_that_breaks_off_goes_on_where_it_was(
        self, hub_environment: HubServer, tmp_path: Path
    ) -> None:
        hub_environment.add("org/model", {"model.safetensors": LARGE})
        hub_environment.cut.add("model.safetensors")
        assert main(["hf://org/model", str(tmp_path / "m")]) == 0
        assert visible(tmp_path / "m") == {"model.safetensors": LARGE}
        assert hub_environment.ranges  # the rest was asked for, not the whole

    def test_content_that_is_not_what_the_hub_lists_is_never_published(
        self,
        hub_environment: HubServer,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        hub_environment.add("org/model", self.FILES)
        hub_environment.corrupt.add("weights/model.safetensors")
        assert main(["hf://org/model", str(tmp_path / "m")]) == 1
        assert visible(tmp_path / "m") == {}
        assert "Corrupt" in capsys.readouterr().err

    def test_a_gated_repository_says_where_to_ask(
        self, hub_environment: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        hub_environment.add("org/gated", self.FILES)
        hub_environment.repos["org/gated"].gated = True
        assert main(["hf://org/gated", str(tmp_path / "m")]) == 1
        assert f"{hub_environment.endpoint}/org/gated" in capsys.readouterr().err

    def test_the_token_of_the_environment_is_used_and_not_shown(
        self,
        hub_environment: HubServer,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        hub_environment.add("org/model", self.FILES)
        monkeypatch.setenv("HF_TOKEN", "hf_wrong")
        assert main(["hf://org/model", str(tmp_path / "m")]) == 1
        said = capsys.readouterr().err
        assert "TokenInvalid" in said
        assert "hf_wrong" not in said


class TestUsage:
    @pytest.mark.parametrize(
        "arguments",
        [[], ["s3://models"], ["ftp://x/y", "d"], ["models/iris", "d"], ["s3://x", "d", "--what"]],
    )
    def test_wrong_usage_exits_with_2(self, arguments: list[str]) -> None:
        assert main(arguments) == 2

    def test_each_store_leaves_the_other_stores_library_alone(self) -> None:
        code = (
            "import sys; from beamlit_operator.origins import __main__ as m\n"
            "assert not {'botocore', 'huggingface_hub', 'boto3'} & set(sys.modules)\n"
            "from beamlit_operator.origins.fetching import s3_transfer\n"
            "assert 'huggingface_hub' not in sys.modules\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True)
