"""The objects of a revision: what they say, what changes them, and what never does."""

from dataclasses import replace
from typing import Any

import kubernetes_validate
import pytest

from beamlit_operator.api import Model, ModelDeployment
from beamlit_operator.policy import Aspect, Effect, EffectivePolicy, Trace, Unresolved, Value
from beamlit_operator.policy.extending import extended
from beamlit_operator.workloads import (
    ModelFiles,
    Refusal,
    Settings,
    Workload,
    endpoint_service,
    names,
    s3_credentials,
    workload,
)

SETTINGS = Settings(
    image="ghcr.io/beamlit/beamlit-operator:0.1.0",
    gateway_service="beamlit-gateway.beamlit-system.svc.cluster.local",
)
FILES = ModelFiles(
    uri="s3://models/iris",
    revision="sha256:" + "ab" * 32,
    paths=("model.joblib",),
    bytes=1234,
    endpoint="http://127.0.0.1:9000",
    region="us-east-1",
    secrets=s3_credentials("s3-credentials"),
)
MODEL = Model.model_validate({"metadata": {"name": "iris", "namespace": "team"}})


def deployment(**spec: Any) -> ModelDeployment:
    return ModelDeployment.model_validate(
        {
            "metadata": {"name": "iris-production", "namespace": "team", "uid": "u-1"},
            "spec": {"model": "iris", **spec},
        }
    )


def held_to(*locations: str, flavors: tuple[str, ...] = ()) -> EffectivePolicy:
    def aspect(values: tuple[str, ...]) -> Aspect:
        found = frozenset(Value(*value.split(":")) for value in values)
        return Aspect(found or None, ())

    return EffectivePolicy(location=aspect(locations), flavor=aspect(flavors))


def made(
    given: ModelDeployment | None = None,
    *,
    model: Model = MODEL,
    policy: EffectivePolicy | None = None,
    files: ModelFiles = FILES,
    settings: Settings = SETTINGS,
    live: dict[str, Any] | None = None,
) -> Workload:
    result = workload(
        given or deployment(),
        model,
        policy=policy or held_to(),
        files=files,
        settings=settings,
        live=live,
    )
    assert isinstance(result, Workload), result
    return result


def refusal(given: ModelDeployment, policy: EffectivePolicy | None = None) -> Refusal:
    result = workload(given, MODEL, policy=policy or held_to(), files=FILES, settings=SETTINGS)
    assert isinstance(result, Refusal), result
    return result


def pod(result: Workload) -> dict[str, Any]:
    spec: dict[str, Any] = result.deployment["spec"]["template"]["spec"]
    return spec


def container(result: Workload, name: str = "model") -> dict[str, Any]:
    spec = pod(result)
    (found,) = (c for c in spec["containers"] + spec["initContainers"] if c["name"] == name)
    return dict(found)


def env(result: Workload, name: str = "model") -> dict[str, str]:
    return {each["name"]: each.get("value", "") for each in container(result, name)["env"]}


def running(result: Workload, replicas: int = 1) -> dict[str, Any]:
    """The revision's Deployment as the cluster has it."""
    spec = {**result.deployment["spec"], "replicas": replicas}
    return {result.revision: {**result.deployment, "spec": spec}}


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"runtime": {"type": "vllm"}, "flavors": [{"type": "gpu", "name": "t4"}]},
        {"runtime": {"type": "tei"}},
        {"runtime": {"type": "triton", "metricPort": 9999}},
        {"runtime": {"image": "example.com/mine:1", "servingPort": 9000}},
        {"podTemplate": {"spec": {"nodeSelector": {"disk": "ssd"}}}},
    ],
)
def test_every_object_is_valid_for_kubernetes(spec: dict[str, Any]) -> None:
    given = deployment(**spec)
    result = made(given, policy=held_to("country:us"))
    for each in (*result.objects, endpoint_service(given, SETTINGS)):
        kubernetes_validate.validate(each, "1.34", strict=True)


def test_the_files_are_fetched_before_the_server_starts() -> None:
    fetch = container(made(), "fetch")
    assert fetch["command"] == ["beamlit"]
    assert fetch["args"] == [
        "fetch", "s3://models/iris", "/mnt/models", "--revision", FILES.revision,
    ]  # fmt: skip
    assert env(made(), "fetch")["AWS_ENDPOINT_URL"] == "http://127.0.0.1:9000"
    secrets = {e["name"]: e["valueFrom"] for e in fetch["env"] if "valueFrom" in e}
    assert secrets["AWS_ACCESS_KEY_ID"] == {
        "secretKeyRef": {"name": "s3-credentials", "key": "AWS_ACCESS_KEY_ID"}
    }
    assert secrets["AWS_SESSION_TOKEN"]["secretKeyRef"]["optional"] is True
    models = {"name": "models", "mountPath": "/mnt/models"}
    assert models in fetch["volumeMounts"]
    assert {**models, "readOnly": True} in container(made())["volumeMounts"]


def test_hub_patterns_reach_the_fetcher() -> None:
    files = ModelFiles(
        uri="hf://org/name",
        revision="c" * 40,
        paths=("model.gguf",),
        endpoint="https://mirror",
        allow_patterns=("*.gguf",),
        ignore_patterns=("*.md",),
    )
    arguments = container(made(files=files), "fetch")["args"]
    assert arguments[-4:] == ["--allow-pattern", "*.gguf", "--ignore-pattern", "*.md"]
    assert env(made(files=files), "fetch") == {
        "HF_ENDPOINT": "https://mirror",
        "BEAMLIT_PROGRESS_PORT": "15820",
    }


def test_mlserver_is_told_what_to_load_when_the_files_do_not_say() -> None:
    assert env(made())["MLSERVER_MODEL_NAME"] == "iris"
    assert env(made())["MLSERVER_MODEL_URI"] == "/mnt/models/model.joblib"
    assert env(made())["MLSERVER_MODEL_IMPLEMENTATION"] == "mlserver_sklearn.SKLearnModel"


def test_a_ready_server_is_found_within_a_second() -> None:
    serving = container(made())
    assert serving["readinessProbe"]["periodSeconds"] == 1
    assert serving["startupProbe"]["periodSeconds"] == 1
    handler = {"path": "/v2/health/ready", "port": 8080}
    assert serving["readinessProbe"]["httpGet"] == serving["startupProbe"]["httpGet"] == handler


def test_pods_keep_to_the_restricted_standard() -> None:
    spec = pod(made())
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for each in (*spec["containers"], *spec["initContainers"]):
        assert each["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert each["securityContext"]["readOnlyRootFilesystem"] is True


def test_replicas_are_left_to_the_autoscaler() -> None:
    assert "replicas" not in made().deployment["spec"]


def test_the_headless_service_selects_the_pods_of_the_revision() -> None:
    result = made()
    assert result.service["metadata"]["name"] == result.revision
    assert result.service["spec"]["clusterIP"] == "None"
    labels = result.deployment["spec"]["template"]["metadata"]["labels"]
    assert result.service["spec"]["selector"].items() <= labels.items()
    assert labels["beamlit.com/model-deployment"] == "iris-production"
    assert result.service["metadata"]["labels"] == labels


def test_the_deployments_own_service_leads_to_the_gateway() -> None:
    service = endpoint_service(deployment(), SETTINGS)
    assert service["metadata"]["name"] == "iris-production"
    assert service["spec"]["type"] == "ExternalName"
    assert service["spec"]["externalName"] == SETTINGS.gateway_service


def test_the_policy_becomes_affinity_and_a_users_own_affinity_must_hold_too() -> None:
    own = {"key": "disk", "operator": "In", "values": ["ssd"]}
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    affinity = {"nodeAffinity": {required: {"nodeSelectorTerms": [{"matchExpressions": [own]}]}}}
    result = made(
        deployment(podTemplate={"spec": {"affinity": affinity}}), policy=held_to("country:us")
    )
    terms = pod(result)["affinity"]["nodeAffinity"][required]["nodeSelectorTerms"]
    assert len(terms) == 3
    assert all(own in term["matchExpressions"] for term in terms)
    assert all(len(term["matchExpressions"]) > 1 for term in terms)


def test_a_gpu_flavor_brings_the_device_and_the_toleration() -> None:
    given = deployment(runtime={"type": "vllm"}, flavors=[{"type": "gpu", "name": "t4"}])
    result = made(given)
    assert container(result)["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    assert pod(result)["tolerations"][0]["key"] == "nvidia.com/gpu"


def test_a_users_number_of_gpus_counts_and_the_server_uses_them_all() -> None:
    given = deployment(
        runtime={"type": "vllm", "resources": {"limits": {"nvidia.com/gpu": "4"}}},
        flavors=[{"type": "gpu", "name": "t4"}],
    )
    assert container(made(given))["resources"]["limits"] == {"nvidia.com/gpu": "4"}
    assert container(made(given))["args"][-2:] == ["--tensor-parallel-size", "4"]


GPU = {"resources": {"limits": {"nvidia.com/gpu": "1"}}}
BESIDE = {"name": "beside", "image": "x", **GPU}


@pytest.mark.parametrize(
    "spec",
    [
        {"runtime": {"type": "vllm", **GPU}},
        {"podTemplate": {"spec": {"containers": [BESIDE]}}},
        {"podTemplate": {"spec": {"initContainers": [BESIDE]}}},
        {"runtime": GPU, "flavors": [{"type": "cpu", "name": "x86"}]},
    ],
)
def test_a_device_in_the_resources_is_no_way_around_a_flavor_policy(spec: dict[str, Any]) -> None:
    found = refusal(deployment(**spec), held_to(flavors=("cpu:x86",)))
    assert found.reason == "FlavorNotAllowed"
    assert "nvidia.com/gpu" in found.message
    assert "cpu:x86" in found.message


def test_a_device_without_a_flavor_is_placed_on_the_allowed_types_that_have_it() -> None:
    given = deployment(runtime={"type": "vllm", **GPU})
    under = made(given, policy=held_to(flavors=("cpu:x86", "gpu:t4")))
    named = deployment(runtime={"type": "vllm", **GPU}, flavors=[{"type": "gpu", "name": "t4"}])
    assert pod(under)["affinity"] == pod(made(named))["affinity"]
    assert "affinity" not in pod(made(given))


def test_the_same_input_gives_the_same_revision_and_another_version_another() -> None:
    assert made() == made()
    other = ModelFiles(**{**vars(FILES), "revision": "sha256:" + "cd" * 32})
    assert made(files=other).revision != made().revision
    assert made(deployment(serverlessConfig={"minNumReplicas": 1})).revision == made().revision


def test_revisions_that_exist_keep_their_names() -> None:
    # But for the fetcher's image, a revision is its pod, the template's metadata and the
    # flavors: no more, where the protocol is the default.
    server = pod(made())
    (fetch,) = server["initContainers"]
    without_image = {key: value for key, value in fetch.items() if key != "image"}
    content = {"pod": {**server, "initContainers": [without_image]}, "metadata": {}, "flavors": []}
    assert made().revision == names.revision_name("iris-production", content)
    spoken = deployment(runtime={"type": "mlserver", "appProtocol": "http"})
    assert made(spoken) == made(deployment(runtime={"type": "mlserver"}))


def test_what_the_server_speaks_is_told_on_its_service_and_its_deployment() -> None:
    result = made(deployment(runtime={"image": "grpc", "appProtocol": "kubernetes.io/h2c"}))
    assert result.app_protocol == "kubernetes.io/h2c"
    (port,) = result.service["spec"]["ports"]
    assert port["appProtocol"] == "kubernetes.io/h2c"
    annotations = result.deployment["metadata"]["annotations"]
    assert annotations["beamlit.com/app-protocol"] == "kubernetes.io/h2c"
    other = made(deployment(runtime={"image": "grpc"}))
    assert other.revision != result.revision
    assert "appProtocol" not in other.service["spec"]["ports"][0]


def test_what_policies_allow_is_no_part_of_the_revision() -> None:
    assert made(policy=held_to("country:us")).revision == made().revision


def test_another_version_of_the_operator_makes_no_new_revision() -> None:
    upgraded = Settings(
        image="ghcr.io/beamlit/beamlit-operator:0.2.0", gateway_service=SETTINGS.gateway_service
    )
    after = made(settings=upgraded)
    assert after.revision == made().revision
    assert container(after, "fetch")["image"].endswith(":0.2.0")
    kept = made(settings=upgraded, live=running(made()))
    assert kept.deployment == made().deployment
    idle = made(settings=upgraded, live=running(made(), replicas=0))
    assert idle.deployment == after.deployment


def test_a_loosened_policy_does_not_touch_the_template_of_running_pods() -> None:
    tight, loose = held_to("country:us"), held_to("continent:na")
    before = made(policy=tight)
    assert made(policy=loose, live=running(before)).deployment == before.deployment
    assert made(policy=held_to(), live=running(before)).deployment == before.deployment
    idle = made(policy=loose, live=running(before, replicas=0))
    assert idle.deployment == made(policy=loose).deployment


def test_a_tightened_policy_changes_the_template_at_once() -> None:
    before = made(policy=held_to("continent:na"))
    after = made(policy=held_to("country:us"), live=running(before))
    assert after.deployment == made(policy=held_to("country:us")).deployment


def test_an_addition_to_the_catalogue_does_not_touch_the_template_of_running_pods() -> None:
    policy = held_to("country:us", flavors=("gpu:t4",))
    before = made(policy=policy)
    texts = {
        "regions.yaml": "clouds: {own: {regions: boston-1 us Boston}}",
        "flavors.yaml": "gpu: {t4: {labels: {acme/gpu: [t4]}}}",
    }
    more = replace(SETTINGS, catalogue=extended(texts).catalogue)
    after = made(policy=policy, settings=more)
    assert after.deployment != before.deployment
    assert made(policy=policy, settings=more, live=running(before)).deployment == before.deployment
    # Loosened besides: still as strict as it need be.
    loose = made(policy=held_to("continent:na"), settings=more, live=running(before))
    assert pod(loose)["affinity"] == pod(before)["affinity"]
    idle = made(policy=policy, settings=more, live=running(before, replicas=0))
    assert idle.deployment == after.deployment


def named(held: EffectivePolicy, name: str, *, mandatory: bool = False) -> EffectivePolicy:
    """The same policy, as that of a name."""
    allowed = held.location.allowed or frozenset()
    row = Trace(name, "environment", mandatory, Effect.ENFORCED, "", "M", allowed)
    return EffectivePolicy(Aspect(allowed, (row,)), held.flavor)


def test_a_pod_says_in_words_where_it_may_run_and_by_whose_policy() -> None:
    policy = named(held_to("country:us", flavors=("gpu:t4",)), "us-only", mandatory=True)
    template = made(policy=policy).deployment["spec"]["template"]
    assert template["metadata"]["annotations"] == {
        "beamlit.com/policy": "location: country:us (us-only, mandatory) / flavor: gpu:t4"
    }
    assert "annotations" not in made().deployment["spec"]["template"]["metadata"]


def test_words_alone_never_change_the_template_of_running_pods() -> None:
    us = held_to("country:us")
    before = made(policy=named(us, "us-only"))
    renamed = named(us, "america")
    assert made(policy=renamed, live=running(before)).deployment == before.deployment
    assert made(policy=renamed, live=running(before, replicas=0)).deployment != before.deployment
    # Made by an operator that wrote no words yet.
    wordless = running(before)
    template = wordless[before.revision]["spec"]["template"]
    del template["metadata"]["annotations"]
    after = made(policy=renamed, live=wordless).deployment["spec"]["template"]
    assert "annotations" not in after["metadata"]


def test_a_region_that_the_catalogue_takes_out_of_a_country_changes_the_template_at_once() -> None:
    before = made(policy=held_to("country:us"))
    moved = {"regions.yaml": "clouds: {own: {regions: us-east-1 ca moved}}"}
    less = replace(SETTINGS, catalogue=extended(moved).catalogue)
    after = made(policy=held_to("country:us"), settings=less, live=running(before))
    assert after.deployment == made(policy=held_to("country:us"), settings=less).deployment
    assert pod(after)["affinity"] != pod(before)["affinity"]


def test_a_placement_that_somebody_else_loosened_is_put_right() -> None:
    tight = held_to("country:us")
    tampered = running(made(policy=tight))
    spec = tampered[made().revision]["spec"]
    template = {**spec["template"]["spec"]}
    del template["affinity"]
    tampered[made().revision]["spec"] = {**spec, "template": {"spec": template}}
    after = made(policy=held_to("continent:na"), live=tampered)
    assert after.deployment == made(policy=held_to("continent:na")).deployment


def test_nothing_is_made_while_a_policy_is_missing() -> None:
    broken = EffectivePolicy(
        location=Aspect(None, ()),
        flavor=Aspect(None, ()),
        unresolved=(Unresolved("Policy", "ghost", "Policy ghost does not exist"),),
    )
    assert refusal(deployment(), broken) == Refusal(
        refusal(deployment(), broken).reason, "Policy ghost does not exist"
    )
    assert refusal(deployment(), broken).reason == "PolicyNotFound"


@pytest.mark.parametrize(
    ("spec", "reason", "says"),
    [
        ({"flavors": [{"type": "gpu", "name": "l4"}]}, "FlavorNotAllowed", "gpu:l4"),
        (
            {"runtime": {"type": "vlm"}},
            "InvalidSpec",
            "sglang, tei, torchserve, triton, vllm",
        ),
        ({"runtime": {"type": "llamacpp"}}, "InvalidSpec", ".gguf"),
        ({"modelSourceRef": {"name": "x"}}, "UnsupportedField", "spec.modelSourceRef"),
        ({"offloadingConfig": {}}, "UnsupportedField", "spec.offloadingConfig"),
        ({"podTemplate": {"spec": {"nodeName": "n"}}}, "UnsupportedField", "nodeSelector"),
        ({"podTemplate": {"spec": {"hostNetwork": True}}}, "UnsupportedField", "hostNetwork"),
        (
            {"podTemplate": {"spec": {"resourceClaims": [{"name": "gpu"}]}}},
            "UnsupportedField",
            "spec.flavors",
        ),
        ({"podTemplate": {"spec": {"containers": "no"}}}, "InvalidSpec", "list of objects"),
        ({"podTemplate": {"spec": []}}, "InvalidSpec", "must be an object"),
        ({"podTemplate": {"image": "x"}}, "InvalidSpec", "spec.podTemplate.image"),
        (
            {"podTemplate": {"metadata": {"finalizers": ["me.example/stay"]}}},
            "InvalidSpec",
            "spec.podTemplate.metadata.finalizers",
        ),
        (
            {"podTemplate": {"spec": {"containers": [{"name": "model", "$patch": "delete"}]}}},
            "InvalidSpec",
            "cannot be removed",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_field_and_fix(
    spec: dict[str, Any], reason: str, says: str
) -> None:
    result = refusal(deployment(**spec), held_to(flavors=("gpu:t4", "cpu:x86")))
    assert str(result.reason) == reason
    assert says in result.message


def test_files_that_tell_no_runtime_are_refused_with_the_known_types() -> None:
    files = ModelFiles(uri="s3://m/x", revision="sha256:00", paths=("README.md",))
    result = workload(deployment(), MODEL, policy=held_to(), files=files, settings=SETTINGS)
    assert isinstance(result, Refusal)
    assert "spec.runtime.type" in result.message


def test_a_users_template_is_laid_over_the_pod() -> None:
    template = {
        "metadata": {"annotations": {"a": "b"}, "labels": {"beamlit.com/revision": "forged"}},
        "spec": {
            "containers": [
                {"name": "model", "env": [{"name": "HOME", "value": "/home"}]},
                {"name": "side", "image": "example.com/side:1"},
            ],
            "terminationGracePeriodSeconds": 7,
        },
    }
    result = made(deployment(podTemplate=template))
    assert env(result)["HOME"] == "/home"
    assert env(result)["MLSERVER_HTTP_PORT"] == "8080"
    assert [each["name"] for each in pod(result)["containers"]] == ["model", "side"]
    assert pod(result)["terminationGracePeriodSeconds"] == 7
    metadata = result.deployment["spec"]["template"]["metadata"]
    assert metadata["annotations"] == {"a": "b"}
    assert metadata["labels"]["beamlit.com/revision"] == result.revision


def test_the_longest_name_still_names_a_service() -> None:
    given = deployment()
    longest = given.model_copy(
        update={"metadata": given.metadata.model_copy(update={"name": "a" * 54})}
    )
    assert len(made(longest).revision) == 63
    too_long = given.model_copy(
        update={"metadata": given.metadata.model_copy(update={"name": "a" * 55})}
    )
    assert "metadata.name" in refusal(too_long).message
