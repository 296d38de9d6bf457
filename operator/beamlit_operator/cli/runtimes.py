"""``beamlit runtimes``: the table of runtime presets, with where each row comes from.

| given                            | the table                                                  |
|----------------------------------|------------------------------------------------------------|
| ``-f FILES``                     | the built-in one with the labelled ConfigMaps in the files |
| a cluster                        | with its ConfigMaps, in the operator's namespace           |
| a cluster that lets nobody read  | the built-in one, and a warning                            |
| no cluster, and none named       | the built-in one, and a sentence that says so              |

Rows that cannot be used are said, and make the command fail: so it tells before an apply whether
they can.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from rich.table import Table as Screen
from rich.text import Text

from beamlit_operator.api import labels
from beamlit_operator.cli.catalogues import namespace
from beamlit_operator.cli.cluster import NoClusterError, Target, connection
from beamlit_operator.cli.errors import BAD_INPUT, FAILED, CommandError
from beamlit_operator.cli.manifests import Manifest, read_manifests
from beamlit_operator.cli.screen import table_console
from beamlit_operator.kube import CONFIG_MAPS, ApiError, KubeClient
from beamlit_operator.workloads.presets import Preset, Row, Table, built_in, extended

_SELECTOR = f"{labels.RUNTIMES}=true"


async def runtimes_command(
    target: Target, *, files: tuple[Path, ...], output: Literal["table", "json"]
) -> int:
    """Prints the table; returns 1 if rows of it were left out."""
    if files:
        table = from_manifests(read_manifests(files))
    else:
        table = await _of_the_cluster(target)
    if output == "json":
        print(json.dumps([_as_json(table, each) for each in _rows(table)], indent=2))
    else:
        table_console().print(_screen(table))
    for problem in table.problems:
        print(f"beamlit: {problem}", file=sys.stderr)
    return FAILED if table.problems else 0


def from_manifests(manifests: Iterable[Manifest]) -> Table:
    """The table with the labelled ConfigMaps among manifests.

    Raises:
        CommandError: one of them holds no texts.
    """
    found: dict[str, dict[str, str]] = {}
    for each in manifests:
        metadata = each.document.get("metadata")
        if each.document.get("kind") != "ConfigMap" or not isinstance(metadata, dict):
            continue
        if (metadata.get("labels") or {}).get(labels.RUNTIMES) != "true":
            continue
        data = each.document.get("data") or {}
        if not isinstance(data, dict) or not all(isinstance(text, str) for text in data.values()):
            raise CommandError(f"{each.source}: data must hold texts", status=BAD_INPUT)
        found[str(metadata.get("name"))] = data
    return extended(found)


async def _of_the_cluster(target: Target) -> Table:
    try:
        async with connection(target) as client:
            return await from_cluster(client)
    except NoClusterError:
        print(
            "beamlit: no cluster is named, so only the built-in rows are shown: set KUBECONFIG or "
            "give --kubeconfig for a cluster's own, or -f FILES for those of manifests",
            file=sys.stderr,
        )
        return built_in()


async def from_cluster(client: KubeClient) -> Table:
    """The table that the cluster's operator has, but for rows that were spoilt while it ran."""
    try:
        listed = await client.list(CONFIG_MAPS, namespace(), label_selector=_SELECTOR)
    except ApiError as error:
        if error.status != 403:
            raise
        print(
            f"beamlit: the ConfigMaps in {namespace()} may not be read, so only the built-in rows "
            f"are shown: {error.message}; -f FILES shows those of manifests",
            file=sys.stderr,
        )
        return built_in()
    return extended({each["metadata"]["name"]: each.get("data") or {} for each in listed.items})


def _rows(table: Table) -> list[Preset]:
    return [table.presets[name] for name in sorted(table.presets)]


def _screen(table: Table) -> Screen:
    screen = Screen(box=None, pad_edge=False, header_style="bold")
    for column in ("TYPE", "IMAGE", "IMAGE WITH GPU", "PORT", "METRICS", "PROTOCOL", "FROM"):
        screen.add_column(column)
    for each in _rows(table):
        screen.add_row(
            *(
                Text(str(value))
                for value in (
                    each.type,
                    each.image,
                    each.image_gpu or "-",
                    each.port,
                    each.metric_port or each.port,
                    each.protocol,
                    ", ".join(table.sources[each.type]),
                )
            )
        )
    return screen


def _as_json(table: Table, preset: Preset) -> dict[str, Any]:
    """As a ConfigMap would have the row, with its type and where it comes from."""
    fields = {name: getattr(preset, name) for name in Row.model_fields}
    row = Row.model_validate(
        {Row.model_fields[name].alias or name: v for name, v in fields.items()}
    )
    written = row.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    return {"type": preset.type, "from": list(table.sources[preset.type]), **written}
