"""The table of runtime presets: how each model server is run. Built in, and what a cluster adds.

The built-in rows are `runtimes.yaml`. A cluster adds to them by ConfigMaps, with a key for each
type and a row as its text; a row for a type that is known changes the fields it has:

| field of a row          | of a type that is known    | of a new type         |
|-------------------------|----------------------------|-----------------------|
| left out                | stays                      | has its default       |
| `env`                   | added to it by name        | taken                 |
| another one             | replaced                   | taken                 |
| anything that is wrong  | the whole row is left out; while the operator runs, what the row said |
|                         | before it was spoilt goes on                       |

ConfigMaps count in the order of their names, so that the result never depends on who came first.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib.resources import files
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

BUILT_IN = "built-in"
"""Where a row comes from that no ConfigMap has."""

LONGEST_START = 4 * 3600
"""Seconds that a start may take at most, whatever the model's size."""

LONGEST_ROW = 65536
"""Characters of a row's text: reading it keeps the operator from all else."""

PLACEHOLDERS = (
    "{port}", "{metricPort}", "{model}", "{environment}", "{models}", "{gguf}", "{gpus}",
)  # fmt: skip
"""What command, args and env are filled with."""

CONTEXT = "{context}"
"""What `argsFromModel` may hold besides: a number of tokens."""

_TYPE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_PLACEHOLDER = re.compile(r"\{[A-Za-z]+\}")

Text = Annotated[str, Field(max_length=4096)]
Texts = Annotated[tuple[Text, ...], Field(max_length=256)]
Image = Annotated[str, Field(min_length=1, max_length=512)]
Port = Annotated[int, Field(ge=1, le=65535)]
Amounts = Annotated[dict[str, str | int | float], Field(max_length=32)]


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True)


class FromModel(_Part):
    """Arguments that depend on what the model's files say; `arguments` has when each is added."""

    gpu_context: Texts = ()
    cpu_context: Texts = ()
    long_context: Texts = ()
    embedding: Texts = ()
    reranking: Texts = ()


class Resources(_Part):
    """Requests and limits, as in a container."""

    requests: Amounts = Field(default_factory=dict)
    limits: Amounts = Field(default_factory=dict)


class Row(_Part):
    """One row as it is written; `runtimes.yaml` says what the fields mean."""

    image: Image | None = None
    image_gpu: Image | None = None
    command: Texts | None = None
    command_gpu: Texts | None = None
    args: Texts | None = None
    args_gpu: Texts | None = None
    args_from_model: FromModel | None = None
    port: Port | None = None
    metric_port: Port | None = None
    protocol: Literal["openai", "openinference", "other"] | None = None
    ready: Annotated[str, Field(pattern="^/", max_length=1024)] | None = None
    start_seconds: Annotated[int, Field(ge=1, le=LONGEST_START)] | None = None
    grace_seconds: Annotated[int, Field(ge=0, le=3600)] | None = None
    env: Annotated[dict[str, Text], Field(max_length=128)] | None = None
    resources: Resources | None = None
    memory_volume: bool | None = None


@dataclass(frozen=True)
class Preset:
    """How one model server is run; the fields are those of `runtimes.yaml`."""

    type: str
    image: str
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    port: int = 8080
    protocol: str = "other"
    ready: str | None = None
    """None: it is ready when it takes connections."""
    image_gpu: str | None = None
    command_gpu: tuple[str, ...] | None = None
    args_gpu: tuple[str, ...] = ()
    args_from_model: FromModel = field(default_factory=FromModel)
    metric_port: int | None = None
    start_seconds: int = 600
    grace_seconds: int = 60
    env: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, Any] = field(default_factory=dict)
    memory_volume: bool = False


class BadRowError(Exception):
    """A row cannot be used; says which field and why, to a person."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A row that was left out."""

    config_map: str
    key: str
    message: str
    kept: bool
    """Whether what it said before goes on."""

    def __str__(self) -> str:
        then = "what it said before goes on" if self.kept else "it is left out"
        return f"ConfigMap {self.config_map}, key {self.key}: {self.message}; {then}"


Place = tuple[str, str]
"""A ConfigMap's name and a key of it."""


@dataclass(frozen=True)
class Table:
    """The presets that are in force."""

    presets: Mapping[str, Preset]
    sources: Mapping[str, tuple[str, ...]]
    """By type: where its fields come from, the last of which counts most."""
    problems: tuple[Problem, ...] = ()
    good: Mapping[Place, Row] = field(default_factory=dict)
    """The rows that ConfigMaps added, to be given to the next `extended`."""


@cache
def presets() -> Mapping[str, Preset]:
    """The built-in presets by type, read from the packaged data once."""
    # Imported here: see policy.catalogue.
    import yaml

    text = files("beamlit_operator.workloads").joinpath("runtimes.yaml").read_text("utf-8")
    rows = yaml.safe_load(text)["runtimes"]
    return {name: _preset(name, Row.model_validate(row), below=None) for name, row in rows.items()}


def built_in() -> Table:
    """The table without anything added."""
    return Table(presets(), dict.fromkeys(presets(), (BUILT_IN,)))


def extended(
    config_maps: Mapping[str, Mapping[str, str]], *, last: Mapping[Place, Row] | None = None
) -> Table:
    """The built-in table with the rows of ConfigMaps; never fails.

    Args:
        config_maps: their `data`, by name.
        last: the rows that were good before, which stand in for those that are not any more.
    """
    table = dict(presets())
    sources: dict[str, tuple[str, ...]] = dict.fromkeys(table, (BUILT_IN,))
    problems: list[Problem] = []
    good: dict[Place, Row] = {}
    for name in sorted(config_maps):
        for key in sorted(config_maps[name]):
            place, type_ = (name, key), key.removesuffix(".yaml")
            try:
                row = parsed(type_, config_maps[name][key])
                preset = _preset(type_, row, below=table.get(type_))
            except BadRowError as error:
                before = (last or {}).get(place)
                problems.append(Problem(name, key, str(error), kept=before is not None))
                if before is None:
                    continue
                row, preset = before, _preset(type_, before, below=table.get(type_))
            good[place] = row
            table[type_] = preset
            sources[type_] = (*sources.get(type_, ()), name)
    return Table(table, sources, tuple(problems), good)


@lru_cache(maxsize=256)
def parsed(type_: str, text: str) -> Row:
    """A row from its text. Those that a ConfigMap has had all along are not read again.

    Raises:
        BadRowError: it is none.
    """
    import yaml

    if not _TYPE.fullmatch(type_):
        raise BadRowError(
            f"{type_!r} cannot name a type: use up to 63 lower case letters, digits and dashes"
        )
    if len(text) > LONGEST_ROW:
        raise BadRowError(f"its text has {len(text)} characters: {LONGEST_ROW} are allowed")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        content = yaml.load(text, Loader=loader)  # noqa: S506 (a safe loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark is not None else ""
        said = " ".join(str(getattr(error, "problem", None) or error).split())
        raise BadRowError(f"its text is not YAML{line}: {said}") from None
    if not isinstance(content, dict):
        raise BadRowError("its text must be an object with the fields of a runtime, such as image")
    try:
        row = Row.model_validate(content)
    except (ValidationError, RecursionError) as error:
        raise BadRowError(_said(error)) from None
    _check_placeholders(row)
    return row


def _said(error: ValidationError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    found = []
    for each in error.errors(include_input=False, include_url=False):
        where = ".".join(str(part) for part in each["loc"])
        if each["type"] == "extra_forbidden":
            names = ", ".join(field.alias or name for name, field in Row.model_fields.items())
            found.append(f"{where} is not a field: use {names}")
        else:
            found.append(f"{where}: {each['msg']}")
    return "; ".join(found[:5])


def _check_placeholders(row: Row) -> None:
    """A name in braces that nothing fills would reach the server as it is."""
    from_model = row.args_from_model or FromModel()
    context = (
        *from_model.gpu_context,
        *from_model.cpu_context,
        *from_model.long_context,
    )
    for name, texts, more in (
        ("command", row.command, ()),
        ("commandGpu", row.command_gpu, ()),
        ("args", row.args, ()),
        ("argsGpu", row.args_gpu, ()),
        ("argsFromModel", (*from_model.embedding, *from_model.reranking), ()),
        ("argsFromModel", context, (CONTEXT,)),
        ("env", tuple((row.env or {}).values()), ()),
    ):
        known = (*PLACEHOLDERS, *more)
        for text in texts or ():
            for found in _PLACEHOLDER.findall(text):
                if found not in known:
                    raise BadRowError(f"{name} has {found}: use {', '.join(known)}")


def _preset(type_: str, row: Row, *, below: Preset | None) -> Preset:
    given: dict[str, Any] = {
        name: value for name in Row.model_fields if (value := getattr(row, name)) is not None
    }
    if row.resources is not None:
        amounts = row.resources.model_dump()
        given["resources"] = {part: dict(of) for part, of in amounts.items() if of}
    if below is None:
        if row.image is None:
            raise BadRowError(f"image is missing, and {type_} is no built-in type: set it")
        return Preset(type=type_, **given)
    if row.env is not None:
        given["env"] = {**below.env, **row.env}
    fields = {name: getattr(below, name) for name in Row.model_fields}
    return Preset(type=type_, **{**fields, **given})
