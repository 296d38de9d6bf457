"""Whatever a user writes, the answer is objects or a refusal, never an exception."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from beamlit_operator.api import Model, ModelDeployment
from beamlit_operator.policy import Aspect, EffectivePolicy, Value
from beamlit_operator.workloads import ModelFiles, Settings, workload

SETTINGS = Settings(image="ghcr.io/beamlit/beamlit-operator:0.1.0", gateway_service="gateway")
MODEL = Model.model_validate({"metadata": {"name": "iris"}})
HELD = EffectivePolicy(
    location=Aspect(frozenset([Value("country", "us")]), ()),
    flavor=Aspect(frozenset([Value("gpu", "t4")]), ()),
)

KEYS = st.sampled_from(
    [
        "metadata", "spec", "labels", "annotations", "containers", "initContainers", "volumes",
        "name", "env", "resources", "limits", "affinity", "nodeAffinity", "tolerations",
        "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms", "matchExpressions",
        "securityContext", "$patch", "hostPath", "httpGet", "image", "startupProbe",
        "failureThreshold", "$retainKeys", "$setElementOrder/containers", "memory",
    ]
)  # fmt: skip
LEAVES = st.none() | st.booleans() | st.integers() | st.sampled_from(["model", "fetch", "x", ""])
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)
OBJECTS = st.dictionaries(KEYS, JSON, max_size=4)
ENTRIES = st.lists(
    st.builds(lambda name, rest: {**rest, "name": name}, st.sampled_from(["model", "x"]), OBJECTS),
    max_size=2,
)
POD_SPECS = st.builds(lambda containers, rest: {**rest, "containers": containers}, ENTRIES, OBJECTS)


@settings(max_examples=300, deadline=None)
@given(
    template=OBJECTS | st.fixed_dictionaries({"spec": POD_SPECS | OBJECTS}),
    probe=OBJECTS,
    resources=OBJECTS,
    envs=st.lists(OBJECTS, max_size=2),
    startup=st.none() | OBJECTS,
)
def test_a_user_can_write_anything_into_the_free_fields(
    template: dict[str, Any],
    probe: dict[str, Any],
    resources: dict[str, Any],
    envs: list[dict[str, Any]],
    startup: dict[str, Any] | None,
) -> None:
    deployment = ModelDeployment.model_validate(
        {
            "metadata": {"name": "iris", "uid": "u"},
            "spec": {
                "model": "iris",
                "podTemplate": template,
                "runtime": {
                    "type": "mlserver",
                    "readinessProbe": probe,
                    "startupProbe": startup,
                    "resources": resources,
                    "envs": envs,
                },
            },
        }
    )
    files = ModelFiles(uri="s3://models/iris", revision="sha256:00", paths=("model.joblib",))
    workload(deployment, MODEL, policy=HELD, files=files, settings=SETTINGS)
