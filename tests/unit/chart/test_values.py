"""Whatever the schema of values admits becomes valid objects, or a sentence of ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from tests.support import builtin
from tests.support.chart import CHART, Json, Values, merged

charttemplates = pytest.importorskip(
    "tests.support.charttemplates",
    reason="helm-python-sdk, Helm's templates as a package, is not there for this machine",
    exc_type=ImportError,
)

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALIDATOR = jsonschema_rs.validator_for(SCHEMA)
FOREIGN_GROUPS = ("monitoring.coreos.com", "gateway.networking.k8s.io", "beamlit.com")

SEARCH = (Phase.explicit, Phase.reuse, Phase.generate)
"""Without shrinking, which takes minutes here; the values that fail are short enough."""

# What Kubernetes' own schemas describe and ours does not: examples stand for them.
LABELS = {"matchLabels": {"a": "b"}}
EXAMPLES: dict[str, list[Any]] = {
    "affinity": [
        {},
        {
            "podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [
                    {"labelSelector": LABELS, "topologyKey": "kubernetes.io/hostname"}
                ]
            }
        },
    ],
    "extraVolumes": [[], [{"name": "ca", "configMap": {"name": "ca"}}]],
    "valueFrom": [{"secretKeyRef": {"name": "a", "key": "b"}}],
    "labelSelector": [{}, LABELS],
    "podSelector": [{}, LABELS],
    "namespaceSelector": [{}, LABELS],
}


def made_of(schema: Json, name: str = "", *, listed: bool = False) -> st.SearchStrategy[Any]:
    """Values that the schema admits. Outside of lists the chart has what is left out."""
    if name in EXAMPLES:
        return st.sampled_from(EXAMPLES[name])
    schema = resolved(schema)
    if "anyOf" in schema:
        return st.one_of([made_of(each) for each in schema["anyOf"]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema["type"]:
        case "boolean":
            return st.booleans()
        case "integer":
            return st.integers(schema["minimum"], schema.get("maximum", 1000))
        case "number":
            whole = st.integers(schema["minimum"], schema.get("maximum", 1000))
            return st.one_of(whole, whole.map(lambda n: max(n - 0.5, schema["minimum"])))
        case "string":
            return text(schema)
        case "array":
            unique = json.dumps if schema.get("uniqueItems") else None
            items = made_of(schema["items"], listed=True)
            least = schema.get("minItems", 0)
            return st.lists(items, min_size=least, max_size=2, unique_by=unique)
    if "properties" not in schema:
        keys = text(resolved(schema["propertyNames"]))
        return st.dictionaries(keys, made_of(schema["additionalProperties"]), max_size=2)
    parts = {key: made_of(each, key, listed=listed) for key, each in schema["properties"].items()}
    needed = set(schema.get("required", ())) if listed else set()
    optional = {key: each for key, each in parts.items() if key not in needed}
    made = st.fixed_dictionaries({key: parts[key] for key in needed}, optional=optional)
    return made.filter(lambda it: len(it) >= schema.get("minProperties", 0))


def resolved(schema: Json) -> Json:
    if "$ref" in schema:
        schema = SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]]
    return schema


def text(schema: Json) -> st.SearchStrategy[str]:
    longest = schema.get("maxLength", 1000)
    if "pattern" not in schema:
        return st.text(min_size=schema.get("minLength", 0), max_size=min(longest, 20))
    return st.from_regex(schema["pattern"], fullmatch=True).filter(lambda it: len(it) <= longest)


PROPERTIES = {key: each for key, each in SCHEMA["properties"].items() if key != "global"}
VALUES = made_of({**SCHEMA, "properties": PROPERTIES})


@pytest.fixture(scope="module")
def chart() -> Iterator[Any]:
    with charttemplates.templates() as chart:
        yield chart


@settings(
    max_examples=60,
    phases=SEARCH,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@example(given_values={"gateway": {"priorityClassName": "0"}})
@example(given_values={"gateway": {"url": "http://gateway:"}})
@given(given_values=VALUES)
def test_whatever_the_schema_admits_is_valid_or_refused_with_a_sentence(
    chart: Any, given_values: Values
) -> None:
    # The definitions are never different, and long.
    values = merged(given_values, {"crds": {"enabled": False}})
    try:
        objects = chart.objects(values)
    except charttemplates.RenderError as error:
        if charttemplates.SENTENCE not in str(error):
            raise
    else:
        for each in objects:
            check(each)


def check(body: Json) -> None:
    assert body["metadata"]["labels"]["app.kubernetes.io/part-of"] == "beamlit"
    if not body["apiVersion"].startswith(FOREIGN_GROUPS):
        builtin.check(body)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(given_values=VALUES)
def test_those_values_are_admitted_by_the_schema(given_values: Values) -> None:
    """Otherwise the property above would look at refusals only."""
    VALIDATOR.validate(merged(charttemplates.usual(), given_values))


def test_a_workspace_begins_with_two_environments_unless_it_says_otherwise(chart: Any) -> None:
    several = [
        {"name": "a"},
        {"name": "b", "environments": []},
        {"name": "c", "environments": ["d"]},
    ]
    made = chart.objects({"workspaces": several, "crds": {"enabled": False}})
    found = [
        (each["metadata"]["namespace"], each["metadata"]["name"])
        for each in made
        if each["kind"] == "Environment"
    ]
    assert found == [("a", "production"), ("a", "development"), ("c", "d")]
    # Argo CD cannot look what is there, so it must not make them anew with each sync.
    hooks = [each for each in made if each["kind"] in ("Environment", "Namespace")]
    for each in hooks:
        assert each["metadata"]["annotations"]["argocd.argoproj.io/hook"] == "Skip"
