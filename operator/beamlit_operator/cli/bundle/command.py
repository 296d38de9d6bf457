"""The command itself."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from rich.text import Text

from beamlit_operator.cli.bundle.archive import write
from beamlit_operator.cli.bundle.contents import Contents
from beamlit_operator.cli.cluster import Target, connection
from beamlit_operator.cli.errors import CommandError
from beamlit_operator.cli.screen import text_console


async def bundle_command(
    target: Target, *, output: Path | None, system: str | None, log_dir: Path | None
) -> None:
    """Makes the file and says what is in it."""
    made = datetime.now(UTC)
    folder = f"beamlit-support-{made:%Y%m%d-%H%M%S}"
    path = output or Path(f"{folder}.tar.gz")
    if path.exists():
        raise CommandError(f"{path} is there already: give another --output")
    async with connection(target) as client:
        files = await Contents(client, target, system=system, log_dir=log_dir).read()
    try:
        size = write(path, files, folder=folder, at=made.timestamp())
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}") from error
    console = text_console()
    console.print(
        Text("wrote ").append(str(path), style="bold").append(f", {size / 1024:.0f} KB"),
        soft_wrap=True,
    )
    for kind, count in _counts(files).items():
        console.print(f"  {kind:<10} {count} file{'' if count == 1 else 's'}")
    missing = files.get("missing.txt", "").splitlines()
    if missing:
        console.print(Text(f"\n{len(missing)} things could not be read:", style="yellow"))
        for line in missing[:10]:
            console.print(Text(f"  {line}"), soft_wrap=True)
    console.print(
        Text(
            "\nSecrets are in it as names and keys only, and what looks like a secret is taken "
            "out. Names of models, nodes, images and people stay: read it before you send it.",
            style="dim",
        )
    )


def _counts(files: dict[str, str]) -> dict[str, int]:
    """How many files there are of each sort."""
    counts: dict[str, int] = {}
    for path in sorted(files):
        top = path.partition("/")[0].partition(".")[0]
        counts[top] = counts.get(top, 0) + 1
    return counts
