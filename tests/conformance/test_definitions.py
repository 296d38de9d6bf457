"""Which CustomResourceDefinitions are refused, where and why: rules, defaults, lists, columns."""

from __future__ import annotations

from typing import Any

import pytest

from beamlit_operator.kube import CUSTOM_RESOURCE_DEFINITIONS, HttpClient, Json

from .wire import ask

STRING: Json = {"type": "string"}
INTEGER: Json = {"type": "integer"}
KEYED: Json = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]}
CHANGES = "self == oldSelf"


def _object(**properties: Any) -> Json:
    return {"type": "object", "properties": properties}


def _spec(**properties: Any) -> Json:
    return _object(spec=_object(**properties))


def _list(items: Any, **more: Any) -> Json:
    return {"type": "array", "items": items, "maxItems": 5, **more}


def _ruled(schema: Json, *rules: Any, **more: Any) -> Json:
    found = [rule if isinstance(rule, dict) else {"rule": rule} for rule in rules]
    return {**schema, "x-kubernetes-validations": found, **more}


def _definition(schema: Json, **version: Any) -> Json:
    names = {"plural": "things", "kind": "Thing"}
    served = {"name": "v1", "served": True, "storage": True, **version}
    served["schema"] = {"openAPIV3Schema": schema}
    spec = {"group": "probe.beamlit.com", "scope": "Namespaced", "names": names}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.probe.beamlit.com"},
        "spec": {**spec, "versions": [served]},
    }


async def _create(client: HttpClient, definition: Json, query: str = "") -> Any:
    path = f"{CUSTOM_RESOURCE_DEFINITIONS.path()}?dryRun=All{query}"
    return await ask(client, "POST", path, definition)


def _texts(answer: Any) -> list[str]:
    causes = (answer.body.get("details") or {}).get("causes") or ()
    return [f"{c['field']}: {c['message']}" for c in causes]


@pytest.mark.parametrize(
    ("property_", "rule", "problem"),
    [
        (STRING, "self.spec.b == 'x'", "undefined field 'b'"),
        (STRING, "has(self.spec.b)", "undefined field 'b'"),
        (STRING, "self.metadata.labels != {}", "undefined field 'labels'"),
        (STRING, "self.spec.a + 1 == 2", "found no matching overload for '_+_'"),
        (STRING, "self.spec.a == 1", "no matching overload for '_==_' applied to '(string, int)'"),
        (STRING, "self.spec.a < 1", "found no matching overload for '_<_'"),
        (STRING, "self.spec.a.size() == 'x'", "applied to '(int, string)'"),
        (STRING, "self.spec.a && true", "expected type 'bool' but found 'string'"),
        (STRING, "!self.spec.a", "found no matching overload for '!_'"),
        (STRING, "has(self.spec.a) ? 1 : true", "applied to '(bool, int, bool)'"),
        (STRING, "self.spec.a", "cel expression must evaluate to a bool"),
        (STRING, "foo == 1", "undeclared reference to 'foo'"),
        (STRING, "foo(self.spec.a)", "undeclared reference to 'foo'"),
        (INTEGER, "size(self.spec.a) > 1", "found no matching overload for 'size'"),
        ({"type": "number"}, "self.spec.a == 1", "applied to '(double, int)'"),
        (_list(STRING), "1 in self.spec.a", "found no matching overload for '@in'"),
        (_list(STRING), "self.spec.a.all(x, x.b == 1)", "does not support field selection"),
        (
            {"type": "object", "additionalProperties": STRING},
            "self.spec.a['x'] == 1",
            "found no matching overload for '_==_'",
        ),
        (
            {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            "self.spec.a.b == 1",
            "undefined field 'b'",
        ),
    ],
)
async def test_a_rule_that_could_never_work_is_refused(
    client: HttpClient, property_: Json, rule: str, problem: str
) -> None:
    answer = await _create(client, _definition(_ruled(_spec(a=property_), rule)))
    assert answer.status == 422, rule
    (text,) = _texts(answer)
    where = "spec.validation.openAPIV3Schema.x-kubernetes-validations[0].rule: Invalid value: {"
    assert text.startswith(where)
    assert problem in text


@pytest.mark.parametrize(
    "schema",
    [
        _ruled(_spec(a=STRING), "self.metadata.name != 'x'", "self.kind == 'Thing'"),
        _ruled(_spec(a={"x-kubernetes-int-or-string": True}), "self.spec.a > 1"),
        _ruled(_spec(a={"type": "number"}), "self.spec.a > 1"),
        _ruled(_spec(a={"type": "object", "additionalProperties": STRING}), "self.spec.a.x == 'q'"),
        _ruled(_spec(a=_list(STRING, **{"x-kubernetes-list-type": "set"})), "'x' in self.spec.a"),
        _ruled(
            _spec(a=_list(_object(k=STRING))),
            "self.spec.a.all(x, !has(x.k) || x.k.size() < 5) "
            "&& self.spec.a.map(x, x.k).exists(y, y == 'b')",
        ),
        _spec(
            a=_ruled(
                {**STRING, "maxLength": 30, "format": "date-time"},
                "self > timestamp('2020-01-01T00:00:00Z')",
            )
        ),
        _spec(a=_ruled(STRING, CHANGES)),
        _spec(a=_ruled(_list(STRING), CHANGES)),
        _spec(a=_list(_ruled(_object(k=STRING), "self.k == oldSelf.k", required=["k"]), **KEYED)),
        _spec(a=_ruled(_object(b=STRING), {"rule": "true", "fieldPath": ".b"})),
        _spec(a={**STRING, "default": None}),
        _spec(a={**STRING, "nullable": True, "default": None}),
        _object(spec=_object(a=STRING), metadata=_object(name={**STRING, "maxLength": 10})),
        _spec(a={"x-kubernetes-int-or-string": True, "anyOf": [INTEGER, STRING]}),
    ],
)
async def test_a_sound_schema_is_accepted(client: HttpClient, schema: Json) -> None:
    answer = await _create(client, _definition(schema), "&fieldValidation=Strict")
    assert answer.status == 201, answer.message


_PART = _ruled(
    _object(b={**INTEGER, "default": 1}), {"rule": "self.b < 9", "message": "b must be small"}
)


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        (
            _list(_ruled(STRING, CHANGES)),
            "items.x-kubernetes-validations[0].rule: Invalid value: "
            f'"{CHANGES}": oldSelf cannot be used on the uncorrelatable portion of the schema',
        ),
        (
            _ruled(_object(b=STRING), {"rule": "true", "fieldPath": ".zz"}),
            'fieldPath: Invalid value: ".zz": must be a valid path',
        ),
        (
            _ruled(_object(b=_list(STRING)), {"rule": "true", "fieldPath": ".b[0]"}),
            'fieldPath: Invalid value: ".b[0]": must be a valid path',
        ),
        (
            _ruled(STRING, "self == 'a' ||\nself == 'b'"),
            "message: Required value: message must be specified if rule contains line breaks",
        ),
        (
            _ruled(STRING, {"rule": "self == 'a'", "message": "a\nb"}),
            "message: Invalid value: ",
        ),
        (_ruled(STRING, " "), "rule: Required value: rule is not specified"),
        (
            _ruled(STRING, {"rule": "self == 'a'", "reason": "Nope"}),
            'reason: Unsupported value: "Nope"',
        ),
        (
            _ruled(STRING, {"rule": "self == 'a'", "messageExpression": "1"}),
            "messageExpression must evaluate to a string",
        ),
        ({**INTEGER, "default": "x"}, "default: Invalid value: "),
        ({**STRING, "pattern": "^a", "default": "x"}, "default: Invalid value: "),
        ({**STRING, "enum": ["b"], "default": "x"}, "default: Unsupported value: "),
        ({**_PART, "default": {"b": 10}}, "default: Invalid value: b must be small"),
        ({**_PART, "default": {"b": 1, "z": 1}}, "default: Invalid value: "),
        ({**_PART, "default": {}}, "no such key: b evaluating rule: b must be small"),
        (_list(_object(k=STRING), **KEYED), "items.properties[k].default: Required value"),
        (
            _list(_object(z=STRING), **KEYED),
            "x-kubernetes-list-map-keys: Invalid value: ",
        ),
        (
            _list({**_object(k=_object(b=STRING)), "required": ["k"]}, **KEYED),
            "must be a scalar type if parent array's x-kubernetes-list-type is map",
        ),
        (_list(STRING, **KEYED), 'items.type: Invalid value: "string": must be object'),
        (_list(STRING, **{"x-kubernetes-list-type": "foo"}), 'Unsupported value: "foo"'),
        (_list(_object(), **{"x-kubernetes-list-type": "set"}), "must be atomic as item of a list"),
        ({"type": "array", "items": [STRING]}, "items must be a schema object and not an array"),
        ({**STRING, "anyOf": [STRING]}, "anyOf[0].type: Forbidden: must be empty to be structural"),
        ({**STRING, "pattern": "("}, "pattern: Invalid value: "),
        ({**STRING, "pattern": "(?!a)b"}, "pattern: Invalid value: "),
        ({"type": "strin"}, 'type: Unsupported value: "strin"'),
        ({**_object(b=STRING), "additionalProperties": False}, "are mutual exclusive"),
    ],
)
async def test_an_unsound_property_is_refused(
    client: HttpClient, schema: Json, problem: str
) -> None:
    answer = await _create(client, _definition(_spec(a=schema)))
    assert answer.status == 422, problem
    assert any(problem in text for text in _texts(answer)), answer.message
    where = "spec.validation.openAPIV3Schema.properties[spec].properties[a]"
    assert all(text.startswith(where) for text in _texts(answer))


@pytest.mark.parametrize(
    ("metadata", "problem"),
    [
        (_object(labels={"type": "object"}), ": Forbidden: must not specify anything other than"),
        ({"type": "object", "default": {}}, ".default: Forbidden: must not be set in top-level"),
    ],
)
async def test_a_schema_restricts_no_more_of_the_metadata_than_the_name(
    client: HttpClient, metadata: Json, problem: str
) -> None:
    answer = await _create(client, _definition(_object(metadata=metadata)))
    assert answer.status == 422
    path = "spec.validation.openAPIV3Schema.properties[metadata]"
    assert any(text.startswith(path + problem) for text in _texts(answer)), answer.message


@pytest.mark.parametrize(
    ("version", "problems"),
    [
        (
            {"additionalPrinterColumns": [{"name": "A", "type": "foo", "jsonPath": "x"}]},
            [
                "additionalPrinterColumns[0].type: Invalid value: "
                '"foo": must be one of boolean,date,integer,number,string',
                "additionalPrinterColumns[0].JSONPath: Invalid value: "
                '"x": must be a simple json path starting with .',
            ],
        ),
        (
            {
                "subresources": {
                    "scale": {"specReplicasPath": "spec.x", "statusReplicasPath": ".spec.y"}
                }
            },
            [
                "subresources.scale.specReplicasPath: Invalid value: "
                '"spec.x": must be a simple json path starting with .',
                "subresources.scale.statusReplicasPath: Invalid value: "
                '".spec.y": should be a json path under .status',
            ],
        ),
        (
            {"selectableFields": [{"jsonPath": ".spec.zz"}]},
            [
                'selectableFields[0].jsonPath: Invalid value: ".spec.zz": '
                "is an invalid path: does not refer to a valid field"
            ],
        ),
    ],
)
async def test_paths_of_columns_and_subresources_must_make_sense(
    client: HttpClient, version: Json, problems: list[str]
) -> None:
    answer = await _create(client, _definition(_spec(a=STRING), **version))
    assert answer.status == 422
    assert _texts(answer) == [f"spec.{problem}" for problem in problems]


async def test_an_unknown_keyword_of_a_schema_is_an_unknown_field(client: HttpClient) -> None:
    definition = _definition(_spec(a={**STRING, "foo": 1}))
    field = "spec.versions[0].schema.openAPIV3Schema.properties.spec.properties.a.foo"
    answer = await _create(client, definition, "&fieldValidation=Strict")
    assert answer.status == 400
    assert f'unknown field "{field}"' in answer.message
    answer = await _create(client, definition)
    assert answer.status == 201
    assert answer.warnings == [f'unknown field "{field}"']
    schema = answer.body["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert schema == _spec(a=STRING)
