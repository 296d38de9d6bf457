"""What a model's files add to a preset's arguments, and how long it may take to start."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamlit_operator.api import Model, ModelDeployment
from beamlit_operator.api.facts import ModelFacts
from beamlit_operator.api.runtime import Runtime
from beamlit_operator.policy import Aspect, EffectivePolicy, Value
from beamlit_operator.workloads import ModelFiles, Settings, Workload, workload
from beamlit_operator.workloads.arguments import (
    SHORTEST,
    STEP,
    Room,
    memory_limit,
    model_arguments,
)
from beamlit_operator.workloads.loading import progress_deadline, start_deadline
from beamlit_operator.workloads.presets import LONGEST_START, presets
from beamlit_operator.workloads.runtimes import RuntimeProblem, Server, server

GIB = 2**30
T4, A100, H100 = 16 * GIB, 40 * GIB, 80 * GIB

# Llama 3.1 8B: 32 layers of 8 heads of 128 for keys and for values.
LLAMA = ModelFacts(
    task="generate",
    context_length=131072,
    weight_bytes=16 * 10**9,
    kv_values_per_token=65536,
    attention_heads=32,
    kv_heads=8,
    hidden_size=4096,
)
EMBED = ModelFacts(task="embed", context_length=32768, hidden_size=1024, weight_bytes=GIB)


def changed(facts: ModelFacts, **fields: Any) -> ModelFacts:
    return facts.model_copy(update=fields)


@pytest.mark.parametrize(
    ("type_", "facts", "room", "arguments"),
    [
        # Nothing is added that need not be.
        ("vllm", None, Room(1, H100), ()),
        ("vllm", LLAMA, Room(1, H100), ()),
        ("vllm", LLAMA, Room(1, None), ()),
        ("vllm", changed(LLAMA, kv_values_per_token=None), Room(1, A100), ()),
        ("vllm", changed(LLAMA, context_length=8192), Room(1, A100), ()),
        ("triton", LLAMA, Room(1, T4), ()),
        # A context that does not fit is cut to what does.
        ("vllm", LLAMA, Room(1, 24 * GIB), ("--max-model-len", "38400")),
        ("vllm", changed(LLAMA, weight_bytes=8 * GIB), Room(1, T4), ("--max-model-len", "35840")),
        # Single precision is loaded as half of that.
        (
            "vllm",
            changed(LLAMA, format="safetensors", dtype="float32", weight_bytes=16 * GIB),
            Room(1, T4),
            ("--max-model-len", "35840"),
        ),
        # What does not fit at all is not made to by that.
        ("vllm", LLAMA, Room(1, T4), ()),
        # Two GPUs hold more; heads that are fewer than GPUs are kept on each.
        ("vllm", LLAMA, Room(2, 24 * GIB), ()),
        (
            "vllm",
            changed(LLAMA, kv_heads=1, weight_bytes=2 * GIB),
            Room(2, T4),
            ("--max-model-len", "93184"),
        ),
        # SGLang cuts by itself, llama.cpp on a GPU too; in a container it does not.
        ("sglang", LLAMA, Room(1, 24 * GIB), ()),
        ("llamacpp", LLAMA, Room(1, 24 * GIB), ()),
        ("llamacpp", LLAMA, Room(0, None, None), ()),
        ("llamacpp", LLAMA, Room(0, None, 20 * GIB), ("--ctx-size", "37632")),
        ("llamacpp", LLAMA, Room(0, None, 64 * GIB), ()),
        # Longer inputs than the server takes by itself, where there is room for them.
        ("tei", EMBED, Room(1, 24 * GIB), ("--max-batch-tokens", "32768")),
        ("tei", changed(EMBED, weight_bytes=14 * GIB), Room(1, T4), ()),
        ("tei", EMBED, Room(0, None, 64 * GIB), ()),
        ("tei", changed(EMBED, context_length=512), Room(1, H100), ()),
        # Tasks that a server does not see by itself.
        ("vllm", EMBED, Room(1, H100), ("--runner", "pooling")),
        ("sglang", EMBED, Room(1, H100), ("--is-embedding",)),
        ("llamacpp", EMBED, Room(), ("--embeddings",)),
        ("llamacpp", changed(EMBED, task="rerank"), Room(), ("--reranking",)),
        ("vllm", changed(EMBED, task="rerank"), Room(1, H100), ()),
    ],
)
def test_a_model_adds_what_its_server_would_not_do_by_itself(
    type_: str, facts: ModelFacts | None, room: Room, arguments: tuple[str, ...]
) -> None:
    assert model_arguments(presets()[type_], facts, room) == arguments


COUNTS = st.none() | st.integers(0, 2**53 - 1)


@settings(max_examples=300, deadline=None)
@given(
    facts=st.builds(
        ModelFacts,
        context_length=COUNTS,
        weight_bytes=COUNTS,
        kv_values_per_token=COUNTS,
        hidden_size=COUNTS,
        kv_heads=COUNTS,
        task=st.sampled_from(["generate", "embed", "rerank", None]),
    ),
    gpus=st.integers(0, 16),
    memory=st.none() | st.integers(0, 2**45),
    type_=st.sampled_from(sorted(presets())),
)
def test_a_context_is_only_ever_cut_and_never_below_what_is_of_use(
    facts: ModelFacts, gpus: int, memory: int | None, type_: str
) -> None:
    room = Room(gpus, memory, memory)
    found = model_arguments(presets()[type_], facts, room)
    for flag in ("--max-model-len", "--ctx-size"):
        if flag in found:
            tokens = int(found[found.index(flag) + 1])
            assert facts.context_length is not None
            assert SHORTEST <= tokens < facts.context_length
            assert tokens % STEP == 0


def made(runtime: Runtime, facts: ModelFacts, gpus: int = 1, gpu_bytes: int = 24 * GIB) -> Server:
    return server(
        runtime,
        model="m",
        environment="production",
        paths=("config.json", "model.safetensors"),
        gpus=gpus,
        facts=facts,
        gpu_bytes=gpu_bytes,
    )


def test_what_the_user_says_comes_without_the_models() -> None:
    assert "--max-model-len" in made(Runtime(type="vllm"), LLAMA).args
    assert made(Runtime(type="vllm", args=("serve", "x")), LLAMA).args == ("serve", "x")
    assert made(Runtime(type="vllm", command=("serve",)), LLAMA).args == ()


def test_gpus_that_cannot_share_a_model_are_refused_with_those_that_can() -> None:
    with pytest.raises(RuntimeProblem, match=r"3 GPUs.*32 attention heads.*1, 2, 4, 8 or 16"):
        made(Runtime(type="vllm"), LLAMA, gpus=3)
    assert made(Runtime(type="vllm", args=("x",)), LLAMA, gpus=3).args == ("x",)
    assert made(Runtime(type="triton"), LLAMA, gpus=3)
    assert "4" in made(Runtime(type="vllm"), LLAMA, gpus=4).args


@pytest.mark.parametrize(
    ("limit", "size"),
    [
        ("8Gi", 8 * GIB), ("500M", 500 * 10**6), ("1.5Gi", 1536 * 2**20), ("1024", 1024),
        ("2k", 2000), (4096, 4096), ("1e9", None), ("many", None), (None, None),
    ],
)  # fmt: skip
def test_a_limit_of_memory_is_read_as_kubernetes_writes_it(limit: Any, size: int | None) -> None:
    assert memory_limit({"limits": {"memory": limit}}) == size
    assert memory_limit({"limits": limit}) is None
    assert memory_limit({}) is None


@pytest.mark.parametrize(
    ("base", "size", "seconds"),
    [
        (600, 0, 600),
        (600, 100 * 2**20, 601),
        (1800, 140 * 10**9, 1800 + 1335),
        (600, 10**15, LONGEST_START),
        (LONGEST_START, 10**15, LONGEST_START),
    ],
)
def test_a_large_model_may_take_longer_to_start_within_bounds(
    base: int, size: int, seconds: int
) -> None:
    assert start_deadline(base, size) == seconds


def test_the_deployments_deadline_has_time_to_fetch() -> None:
    assert progress_deadline(600, 0) == 600 + 3600
    assert progress_deadline(600, 800 * 2**30) == 600 + 800 * 1024 // 20


# The pod that comes of it.

HELD = EffectivePolicy(location=Aspect(None, ()), flavor=Aspect(None, ()))
SETTINGS = Settings(image="registry.example/beamlit:1", gateway_service="gateway")
LARGE = 60 * 2**30


def revision(
    facts: ModelFacts | None = None,
    *,
    size: int = LARGE,
    live: dict[str, Any] | None = None,
    paths: tuple[str, ...] = ("m.gguf",),
    **spec: Any,
) -> Workload:
    given = {"type": "llamacpp", "resources": {"limits": {"memory": "20Gi"}}, **spec}
    deployment = ModelDeployment.model_validate(
        {
            "metadata": {"name": "m", "namespace": "team", "uid": "u"},
            "spec": {"model": "m", "runtime": given},
        }
    )
    files = ModelFiles(
        uri="s3://models/m", revision="sha256:0", paths=paths, bytes=size, facts=facts
    )
    model = Model.model_validate({"metadata": {"name": "m"}})
    found = workload(deployment, model, policy=HELD, files=files, settings=SETTINGS, live=live)
    assert isinstance(found, Workload), found
    return found


def container(found: Workload) -> dict[str, Any]:
    (serving,) = found.deployment["spec"]["template"]["spec"]["containers"]
    return dict(serving)


def running(found: Workload, replicas: int = 1) -> dict[str, Any]:
    spec = {**found.deployment["spec"], "replicas": replicas}
    return {found.revision: {**found.deployment, "spec": spec}}


def test_the_time_to_load_is_in_the_probe_and_not_in_the_name() -> None:
    small, large = revision(size=0), revision()
    assert container(small)["startupProbe"]["failureThreshold"] == 900
    assert container(large)["startupProbe"]["failureThreshold"] == 900 + 614
    assert small.revision == large.revision
    assert large.deployment["spec"]["progressDeadlineSeconds"] == 900 + 614 + 3600


def test_pods_that_run_keep_the_deadline_they_were_made_with() -> None:
    before = revision(size=0)
    after = revision(live=running(before))
    assert after.deployment["spec"]["template"] == before.deployment["spec"]["template"]
    asleep = revision(live=running(before, replicas=0))
    assert container(asleep)["startupProbe"]["failureThreshold"] == 900 + 614


def test_a_startup_probe_of_the_users_own_counts() -> None:
    given = revision(startupProbe={"periodSeconds": 20, "failureThreshold": 600})
    probe = container(given)["startupProbe"]
    assert probe == {
        "httpGet": {"path": "/health", "port": 8080},
        "periodSeconds": 20,
        "failureThreshold": 600,
    }
    assert given.deployment["spec"]["progressDeadlineSeconds"] == 12000 + 614 + 3600
    own = revision(startupProbe={"tcpSocket": {"port": 1}})
    assert container(own)["startupProbe"] == {"tcpSocket": {"port": 1}}


def test_a_readiness_probe_of_the_users_own_keeps_its_timings_and_watches_the_start() -> None:
    given = {"httpGet": {"path": "/ok", "port": 9}, "periodSeconds": 30, "failureThreshold": 2}
    serving = container(revision(readinessProbe=given))
    assert serving["readinessProbe"] == {"timeoutSeconds": 3, **given}
    assert serving["startupProbe"]["httpGet"] == given["httpGet"]
    assert serving["startupProbe"]["periodSeconds"] == 1


def test_the_time_to_end_is_as_the_user_says() -> None:
    pod = revision(terminationGracePeriodSeconds=30).deployment["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == 30


UNREAD = (None, ModelFacts(incomplete="the store did not answer"))
SMALL = LLAMA.model_copy(update={"context_length": 2048})


def test_a_store_that_does_not_answer_for_a_moment_starts_no_other_revision() -> None:
    before = revision(LLAMA)
    assert container(before)["args"][-2] == "--ctx-size"
    told = {"beamlit.com/model-arguments": '["--ctx-size", "37632"]'}
    assert told.items() <= before.deployment["metadata"]["annotations"].items()
    for unread in UNREAD:
        assert revision(unread).revision != before.revision
        again = revision(unread, live=running(before))
        assert again.revision == before.revision
        assert container(again)["args"] == container(before)["args"]
        # What a user changes makes a new one all the same, by what is known of the same files.
        changed = revision(unread, live=running(before), servingPort=9000)
        assert changed.revision == revision(LLAMA, servingPort=9000).revision


def test_a_revision_of_before_is_known_by_its_arguments_alone() -> None:
    before = revision(LLAMA)
    live = running(before)
    metadata = before.deployment["metadata"]
    annotations = {k: v for k, v in metadata["annotations"].items() if "facts" not in k}
    live[before.revision]["metadata"] = {**metadata, "annotations": annotations}
    for unread in UNREAD:
        assert revision(unread, live=live).revision == before.revision


BOOSTER = ModelFacts(format="lightgbm")


def served(facts: ModelFacts | None, live: dict[str, Any] | None = None) -> Workload:
    """Of a file whose content tells which server it is for."""
    return revision(facts, live=live, paths=("model.txt",), type=None)


def test_what_chooses_the_server_is_remembered_by_the_revision_too() -> None:
    before = served(BOOSTER)
    assert before.runtime == "mlserver"
    for unread in UNREAD:
        again = served(unread, running(before))
        assert again.revision == before.revision
        assert again.deployment["metadata"] == before.deployment["metadata"]


def ready(found: Workload, count: int = 1) -> dict[str, Any]:
    live = running(found)
    live[found.revision]["status"] = {"replicas": 1, "readyReplicas": count}
    return live


def test_what_is_learned_later_restarts_nothing_that_serves() -> None:
    for unread in UNREAD:
        first = revision(unread)
        assert "--ctx-size" not in container(first)["args"]
        live = ready(first)
        for _ in range(2):  # it stays so
            later = revision(LLAMA, live=live)
            assert later.revision == first.revision
            live = ready(later)
        # What does not serve may be mended by it, and what a user changes is made by it.
        assert revision(LLAMA, live=ready(first, 0)).revision == revision(LLAMA).revision
        changed = revision(LLAMA, live=live, servingPort=9000)
        assert "--ctx-size" in container(changed)["args"]


def test_a_revision_that_was_made_by_other_facts_is_followed_by_one_of_these() -> None:
    first = revision(SMALL)
    assert "--ctx-size" not in container(first)["args"]
    assert revision(LLAMA, live=ready(first)).revision == revision(LLAMA).revision


def test_an_annotation_that_nobody_of_ours_wrote_is_left_aside() -> None:
    before = revision(LLAMA)
    for text in ("[", "{}", '"x"', "null", "[1]"):
        live = running(before)
        live[before.revision]["metadata"] = {
            **before.deployment["metadata"],
            "annotations": {"beamlit.com/model-arguments": text},
        }
        assert revision(None, live=live).revision == revision(None).revision


@pytest.mark.parametrize(
    ("paths", "spec", "name"),
    [
        # As the code of release 0.1.0 names them: an upgrade restarts nothing.
        (["model.joblib"], {}, "iris-f6b488ca"),
        (
            ["config.json", "m.safetensors"],
            {"runtime": {"type": "vllm"}, "flavors": [{"type": "gpu", "name": "t4"}]},
            "iris-133ecbc8",
        ),
        (
            ["config.json", "m.safetensors"],
            {"runtime": {"type": "vllm", "resources": {"limits": {"nvidia.com/gpu": "2"}}}},
            "iris-ab8e6cc4",
        ),
        (
            ["x"],
            {"runtime": {"image": "example.com/mine:1", "servingPort": 9000}},
            "iris-dbd0e5f1",
        ),
        (
            ["model.joblib"],
            {
                "podTemplate": {
                    "metadata": {"labels": {"a": "b"}},
                    "spec": {
                        "nodeSelector": {"d": "e"},
                        "tolerations": [{"key": "x"}],
                        "containers": [
                            {
                                "name": "model",
                                "env": [
                                    {"name": "X", "value": "1"},
                                    {"name": "MLSERVER_HTTP_PORT", "$patch": "delete"},
                                ],
                            },
                            {"name": "side", "image": "s"},
                        ],
                        "volumes": [{"name": "v", "emptyDir": {}}],
                        "topologySpreadConstraints": [
                            {"topologyKey": "z", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}
                        ],
                    },
                }
            },
            "iris-8b08cc36",
        ),
    ],
)
def test_a_revision_has_the_name_that_it_had(
    paths: list[str], spec: dict[str, Any], name: str
) -> None:
    deployment = ModelDeployment.model_validate(
        {
            "metadata": {"name": "iris", "namespace": "t", "uid": "u"},
            "spec": {"model": "iris", **spec},
        }
    )
    found = workload(
        deployment,
        Model.model_validate({"metadata": {"name": "iris"}}),
        policy=HELD,
        files=ModelFiles(uri="s3://m/i", revision="sha256:0", paths=tuple(paths), bytes=20 * 10**9),
        settings=Settings(image="img:1", gateway_service="g"),
    )
    assert isinstance(found, Workload), found
    assert found.revision == name


def test_the_flavors_that_are_asked_for_decide_and_no_policy_does() -> None:
    def args(flavors: list[str], policy: EffectivePolicy = HELD, count: int = 1) -> list[str]:
        deployment = ModelDeployment.model_validate(
            {
                "metadata": {"name": "m", "namespace": "team", "uid": "u"},
                "spec": {
                    "model": "m",
                    "flavors": [{"type": "gpu", "name": name} for name in flavors],
                    "runtime": {
                        "type": "vllm",
                        "resources": {"limits": {"nvidia.com/gpu": str(count)}},
                    },
                },
            }
        )
        files = ModelFiles(
            uri="hf://org/llama",
            revision="c" * 40,
            paths=("config.json", "model.safetensors"),
            facts=changed(LLAMA, format="safetensors", dtype="bfloat16"),
        )
        model = Model.model_validate({"metadata": {"name": "m"}})
        found = workload(deployment, model, policy=policy, files=files, settings=SETTINGS)
        assert isinstance(found, Workload), found
        return list(container(found)["args"])

    def length(args: list[str]) -> int | None:
        return int(args[args.index("--max-model-len") + 1]) if "--max-model-len" in args else None

    on_l4 = length(args(["l4"]))
    assert on_l4 is not None
    assert 8192 < on_l4 < 131072
    assert length(args(["h100"])) is None
    assert length(args(["l4", "h100"])) == on_l4
    assert length(args(["l4"], count=4)) is None
    only_h100 = EffectivePolicy(
        location=Aspect(None, ()), flavor=Aspect(frozenset([Value("gpu", "h100")]), ())
    )
    assert length(args(["h100"], only_h100)) is None
