"""docs/lifecycle.md, command by command, on a cluster of its own: it prints what the page says.

``python -m tests.integration.cli.test_lifecycle_page`` writes what it prints into the page.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support import transcript
from tests.support.stack import ROOT, Stack, free_port, running_stack
from tests.support.transcript import Command, commands, fits

from beamlit_operator.cli.samples import greeter
from beamlit_operator.controllers.admission.configuration import by_url, configuration

PAGE = ROOT / "docs" / "lifecycle.md"
SAMPLES = ROOT / "manifests" / "samples"
STORE = "http://127.0.0.1:9900"
"""The sample store's address, as the samples name it."""
WITHIN = 120.0


class SampleStack(Stack):
    """What ``beamlit dev --samples`` runs: with the webhook, and with the samples' model."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.webhook = f"127.0.0.1:{free_port()}"
        self.operator_flags = (*self.operator_flags, "--webhook-listen", self.webhook)

    def start_stores(self) -> None:
        super().start_stores()
        for name, content in greeter().items():
            self.s3().put_object(Bucket="models", Key=f"greeter/{name}", Body=content)

    def prepare(self) -> None:
        self.kubectl("create", "namespace", "beamlit-system")
        body = json.dumps(configuration(by_url(self.webhook)))
        self.kubectl("apply", "--server-side", "-f", "-", stdin=body)


class Reader:
    """Somebody who types what the page says."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        self._environment = {
            "KUBECONFIG": str(stack.kubeconfig),
            "GATEWAY": stack.gateway,
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "TZ": "UTC",
        }
        samples = folder / "manifests" / "samples"
        shutil.copytree(SAMPLES, samples)
        for file in (samples / "lifecycle").glob("*.yaml"):
            file.write_text(file.read_text().replace(STORE, stack.store))

    def types(self, command: Command) -> str:
        printed = transcript.run(
            command, folder=self._folder, environment=self._environment, within=WITHIN
        )
        return printed.replace(self._stack.gateway, "http://127.0.0.1:8080")


@contextmanager
def reader() -> Iterator[Reader]:
    with tempfile.TemporaryDirectory(prefix="beamlit-page-") as name:
        folder = Path(name)
        for each in ("stack", "desk"):
            (folder / each).mkdir()
        with running_stack(folder / "stack", SampleStack) as stack:
            yield Reader(stack, folder / "desk")


@pytest.mark.long
@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
def test_every_command_of_the_page_prints_what_the_page_says() -> None:
    wrong = []
    with reader() as person:
        for command in commands(PAGE.read_text()):
            printed = person.types(command)
            if not fits(command.output, printed):
                wrong.append(
                    f"{PAGE.name}:{command.line}: $ {command.text}\n"
                    f"--- the page says\n{command.output}\n--- it printed\n{printed}"
                )
                # What follows builds on it.
                break
    assert not wrong, "\n\n".join(wrong)


def main() -> None:
    with reader() as person:

        def play(command: Command) -> str:
            print(f"$ {command.text}", flush=True)
            printed = person.types(command)
            print(printed, flush=True)
            if "timed out" in printed:
                raise SystemExit(f"{PAGE.name}:{command.line}: it never became so")
            return printed

        PAGE.write_text(transcript.rewritten(PAGE.read_text(), play))


if __name__ == "__main__":
    main()
