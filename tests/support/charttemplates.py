"""The chart as Helm's templates make it, without a cluster: `helm template` as a function."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import helm_python
import yaml
from tests.support.chart import CHART, RELEASE, SYSTEM, Json, Values

ValuesError = helm_python.HelmValuesError
"""The schema refuses the values."""
RenderError = helm_python.HelmRenderError
"""A template failed, by our own sentence or by mistake."""
SENTENCE = "execution error at (beamlit-operator/templates/"
"""How what `fail` says begins."""


class Templates:
    """The loaded chart; loading takes longer than rendering."""

    def __init__(self, chart: helm_python.Chart) -> None:
        self._chart = chart

    def texts(self, values: Values | None = None, *, namespace: str = SYSTEM) -> dict[str, str]:
        """What each template came to, by its name in the chart."""
        made = self._chart.render(values or {}, name=RELEASE, namespace=namespace)
        return {path.partition("/templates/")[2]: text for path, text in made.items()}

    def objects(self, values: Values | None = None, *, namespace: str = SYSTEM) -> list[Json]:
        """All objects, hooks included."""
        return [
            each
            for path, text in self.texts(values, namespace=namespace).items()
            if path.endswith(".yaml")
            for each in parsed(text)
        ]


class _Loader(yaml.CSafeLoader):
    """Reads `=` as the text it is: PyYAML knows the tag of YAML 1.1 and nothing to do about it."""


_Loader.add_constructor("tag:yaml.org,2002:value", _Loader.construct_yaml_str)


def parsed(text: str) -> list[Any]:
    return [each for each in yaml.load_all(text, _Loader) if each]


@contextmanager
def templates() -> Iterator[Templates]:
    with helm_python.Chart.load(CHART) as chart:
        yield Templates(chart)


def usual() -> Values:
    """The chart's own values."""
    found: Values = yaml.safe_load((CHART / "values.yaml").read_text())
    return found
