"""The CRDs are structural, bounded, and what the models say."""

from pathlib import Path

import pytest
import yaml

from beamlit_operator.api import reference
from beamlit_operator.api.crd import KINDS, crd, main

CRDS = Path(__file__).parents[3] / "crds"


def walk(schema, path="$"):
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from walk(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from walk(schema[key], f"{path}[{key}]")


def nodes():
    for kind in KINDS:
        version = crd(kind)["spec"]["versions"][0]
        for path, node in walk(version["schema"]["openAPIV3Schema"], kind.name):
            yield pytest.param(node, id=path)


@pytest.mark.parametrize("node", list(nodes()))
def test_every_node_is_structural_and_bounded(node):
    assert "type" in node or node.get("x-kubernetes-int-or-string")
    assert not {"$ref", "$defs", "anyOf", "oneOf", "const", "title"} & node.keys()
    match node.get("type"):
        case "array":
            assert node["maxItems"] <= 1024
        case "string":
            assert "enum" in node or node.get("format") == "date-time" or node["maxLength"]
        case "object" if "properties" not in node and "additionalProperties" in node:
            assert node["maxProperties"]


def test_the_committed_files_are_what_the_models_say():
    assert main(["--check", str(CRDS)]) == 0


def test_a_stale_file_is_named(tmp_path, capsys):
    main([str(tmp_path)])
    stale = tmp_path / "beamlit.com_models.yaml"
    stale.write_text(stale.read_text().replace("huggingFace", "other"))
    assert main(["--check", str(tmp_path)]) == 1
    assert "beamlit.com_models.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_kind_has_status_category_and_described_fields(kind):
    document = yaml.safe_load((CRDS / f"beamlit.com_{kind.plural}.yaml").read_text())
    version = document["spec"]["versions"][0]
    assert version["subresources"]["status"] == {}
    assert document["spec"]["names"]["categories"] == ["beamlit"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    undescribed = [
        path
        for path, node in walk(spec, "spec")
        if path != "spec" and "[" not in path.rsplit(".", 1)[-1] and not node.get("description")
    ]
    assert undescribed == []


def test_the_committed_reference_is_what_the_models_say(tmp_path, capsys):
    committed = CRDS.parent / "docs" / "reference.md"
    assert reference.main(["--check", str(committed)]) == 0
    assert reference.main(["--check", str(tmp_path / "missing.md")]) == 1
    assert "make crds" in capsys.readouterr().err


def test_the_scale_path_exists_in_an_object_that_states_no_serverless_config():
    (kind,) = (kind for kind in KINDS if kind.scale)
    version = crd(kind)["spec"]["versions"][0]
    path = version["subresources"]["scale"]["specReplicasPath"].strip(".").split(".")
    node = version["schema"]["openAPIV3Schema"]
    assert path[0] == "spec"
    node = node["properties"]["spec"]["properties"][path[1]]
    # Whole, not {}: the API server checks a default before it fills in those inside it.
    assert node["default"] == {"minNumReplicas": 0, "maxNumReplicas": 10}
    assert path[2] in node["default"]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_files_use_no_anchors(kind):
    events = yaml.parse((CRDS / f"beamlit.com_{kind.plural}.yaml").read_text())
    assert not [event for event in events if isinstance(event, yaml.AliasEvent)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_rule_points_only_at_fields_that_the_schema_states(kind):
    root = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for _, node in walk(root):
        for rule in node.get("x-kubernetes-validations", ()):
            place = node
            for step in rule.get("fieldPath", "").split(".")[1:]:
                place = place["properties"][step]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_no_column_is_as_wide_as_a_digest_and_what_may_be_long_comes_last(kind):
    version = crd(kind)["spec"]["versions"][0]
    columns = version["additionalPrinterColumns"]
    paths = [column["jsonPath"] for column in columns]
    assert not [path for path in paths if path.endswith((".revision", ".version"))]
    messages = [column for column in columns if column["jsonPath"].endswith(".message")]
    assert all(column is columns[-1] and column["priority"] == 1 for column in messages)
    properties = version["schema"]["openAPIV3Schema"]["properties"]
    for path in paths:
        if path.startswith((".metadata", ".status.conditions")):
            continue
        node = {"properties": properties}
        for part in path.strip(".").split("."):
            node = node["properties"][part]
