"""Somebody who types what a page of the documentation says, on a cluster of their own."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support import transcript
from tests.support.stack import ROOT, Stack, free_port, running_stack
from tests.support.transcript import Command, commands, fits

from beamlit_operator.cli.samples import greeter
from beamlit_operator.controllers.admission.configuration import by_url, configuration

SAMPLES = ROOT / "manifests" / "samples"
STORE = "http://127.0.0.1:9900"
"""The sample store's address, as the samples name it."""
WITHIN = 240.0


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
    """Types commands in a folder that has the samples."""

    def __init__(self, stack: Stack, folder: Path, environment: Mapping[str, str]) -> None:
        self.stack = stack
        self._folder = folder
        self._environment = {
            "KUBECONFIG": str(stack.kubeconfig),
            "GATEWAY": stack.gateway,
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "TZ": "UTC",
            **environment,
        }
        samples = folder / "manifests" / "samples"
        shutil.copytree(SAMPLES, samples)
        for file in (samples / "lifecycle").glob("*.yaml"):
            file.write_text(file.read_text().replace(STORE, stack.store))

    def types(self, command: Command) -> str:
        printed = transcript.run(
            command, folder=self._folder, environment=self._environment, within=WITHIN
        )
        return printed.replace(self.stack.gateway, "http://127.0.0.1:8080")

    def first_wrong(self, page: Path) -> str:
        """Types the whole page; what did not print what the page says, or nothing. What follows
        a wrong one builds on it, so it is not typed."""
        for command in commands(page.read_text()):
            printed = self.types(command)
            if not fits(command.output, printed):
                return (
                    f"{page.name}:{command.line}: $ {command.text}\n"
                    f"--- the page says\n{command.output}\n--- it printed\n{printed}"
                )
        return ""

    def rewrite(self, page: Path) -> None:
        """Puts what the commands print into the page."""

        def play(command: Command) -> str:
            print(f"$ {command.text}", flush=True)
            printed = self.types(command)
            print(printed, flush=True)
            if "timed out" in printed:
                raise SystemExit(f"{page.name}:{command.line}: it never became so")
            return printed

        page.write_text(transcript.rewritten(page.read_text(), play))


@contextmanager
def reader(
    kind: type[Stack] = SampleStack, environment: Mapping[str, str] | None = None
) -> Iterator[Reader]:
    """Somebody with a cluster."""
    with tempfile.TemporaryDirectory(prefix="beamlit-page-") as name:
        folder = Path(name)
        for each in ("stack", "desk"):
            (folder / each).mkdir()
        with running_stack(folder / "stack", kind) as stack:
            yield Reader(stack, folder / "desk", environment or {})
