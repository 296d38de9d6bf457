"""What Envoy should have, and that increments lead to the same as a build from scratch."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.gatewayobjects import endpoint_slice, model_deployment

from beamlit_operator.gateway.catalog import Catalog
from beamlit_operator.gateway.names import DeploymentKey, RevisionKey
from beamlit_operator.gateway.resources import ResourceStore, ResourceType
from beamlit_operator.gateway.settings import GatewaySettings
from beamlit_operator.gateway.translation import Translator, full_state
from beamlit_operator.kube import Json

SETTINGS = GatewaySettings(gateway_id="test", domain="models.test")

workspaces = st.sampled_from(["demo", "prod"])
names = st.sampled_from(["iris", "rose", "lily"])
hosts = st.sampled_from([("127.0.0.1", 80), ("127.0.0.2", 80), ("10.0.0.1", 81)])


ENDPOINTS = [
    None,
    {"maxConcurrency": 1},
    {"maxConcurrency": 2, "loadBalancing": "PromptPrefix"},
    {"loadBalancing": "PromptPrefix"},
]


@st.composite
def deployment_events(draw: st.DrawFn) -> tuple[str, str, str, Json | None]:
    workspace, name = draw(workspaces), draw(names)
    if draw(st.integers(0, 4)) == 0:
        return "deployment", workspace, name, None
    revisions = draw(st.sets(st.sampled_from([f"{name}-1", f"{name}-2"])))
    return (
        "deployment",
        workspace,
        name,
        model_deployment(
            name,
            workspace=workspace,
            model=draw(st.sampled_from(["iris", "a-b"])),
            environment=draw(st.sampled_from(["production", "b-production"])),
            traffic={
                revision: draw(st.sampled_from([0, 50, 100])) for revision in sorted(revisions)
            },
            stable=draw(st.sampled_from([None, f"{name}-1"])),
            sticky=draw(st.sampled_from([None, {"header": "x-user"}, {"cookie": "who"}])),
            replicas=draw(st.integers(0, 2)),
            enabled=draw(st.booleans()),
            problem=draw(st.sampled_from([None, ("Duplicate", "older"), ("StartFailed", "boom")])),
            created=draw(st.sampled_from(["2025-01-01T00:00:00Z", "2025-02-01T00:00:00Z"])),
            endpoint=draw(st.sampled_from(ENDPOINTS)),
            app_protocol=draw(st.sampled_from([None, "kubernetes.io/h2c"])),
        ),
    )


@st.composite
def slice_events(draw: st.DrawFn) -> tuple[str, str, str, Json | None]:
    workspace, name = draw(workspaces), draw(names)
    revision = f"{name}-{draw(st.integers(1, 2))}"
    pods = draw(st.lists(hosts, max_size=3, unique=True))
    body = endpoint_slice(revision, pods, workspace=workspace, deployment=name)
    gone = draw(st.integers(0, 4)) == 0
    return "slice", workspace, body["metadata"]["name"], None if gone else body


@settings(deadline=None, max_examples=150)
@given(
    st.lists(
        st.tuples(
            st.lists(st.one_of(deployment_events(), slice_events()), max_size=4), st.booleans()
        ),
        max_size=8,
    )
)
def test_increments_lead_to_the_same_state_as_a_build_from_scratch(
    batches: list[tuple[list[tuple[str, str, str, Json | None]], bool]],
) -> None:
    catalog, store = Catalog(), ResourceStore()
    translator = Translator(catalog, settings=SETTINGS)
    store.apply(translator.start())
    for batch, drop in batches:
        deployments: set[DeploymentKey] = set()
        revisions: set[RevisionKey] = set()
        for kind, workspace, name, body in batch:
            if kind == "deployment":
                changed = catalog.put_deployment(workspace, name, body)
                deployments |= {changed} if changed is not None else set()
            else:
                revisions |= catalog.put_slice(workspace, name, body)
        store.apply(translator.update(deployments, revisions))
        if translator.rerouted:
            store.apply(translator.routes())
        if drop:
            store.apply(translator.drop(translator.retired))
    store.apply(translator.drop(translator.retired))
    assert {t: dict(store[t]) for t in store} == full_state(catalog, settings=SETTINGS)


def _catalog(*objects: Json) -> Catalog:
    catalog = Catalog()
    for obj in objects:
        metadata = obj["metadata"]
        put = catalog.put_slice if "endpoints" in obj else catalog.put_deployment
        put(metadata["namespace"], metadata["name"], obj)
    return catalog


def test_a_pod_that_becomes_ready_changes_the_endpoints_of_its_revision_and_nothing_else() -> None:
    catalog = _catalog(
        *(model_deployment(f"m{i}", model=f"m{i}", traffic={f"m{i}-1": 100}) for i in range(20))
    )
    translator, store = Translator(catalog, settings=SETTINGS), ResourceStore()
    store.apply(translator.start())
    changes: list[dict[ResourceType, set[str]]] = []
    store.subscribe(lambda changed: changes.append(dict(changed)))
    body = endpoint_slice("m7-1", [("127.0.0.1", 80)], deployment="m7")
    store.apply(translator.update((), catalog.put_slice("demo", "m7-1-a", body)))
    assert changes == [{ResourceType.ENDPOINTS: {"demo/m7/m7-1"}}]


def test_a_deployment_whose_replicas_or_condition_moved_changes_nothing() -> None:
    catalog = _catalog(model_deployment("iris", traffic={"iris-1": 100}))
    translator, store = Translator(catalog, settings=SETTINGS), ResourceStore()
    store.apply(translator.start())
    moved = model_deployment(
        "iris", traffic={"iris-1": 100}, replicas=3, problem=("Starting", "..."), generation=2
    )
    key = catalog.put_deployment("demo", "iris", moved)
    assert key is not None
    assert store.apply(translator.update([key], ())) == 0
    assert not translator.rerouted


def test_equal_configuration_has_equal_versions_in_every_agent() -> None:
    objects = [model_deployment(f"m{i}", model=f"m{i}", traffic={f"r{i}": 100}) for i in range(5)]
    one = full_state(_catalog(*objects), settings=SETTINGS)
    other = full_state(_catalog(*reversed(objects)), settings=SETTINGS)
    assert one == other
    elsewhere = full_state(_catalog(*objects), settings=replace(SETTINGS, domain="else.test"))
    assert elsewhere != one


def test_two_deployments_that_claim_one_host_do_not_spoil_the_table() -> None:
    # model a-b in c, and model a in b-c: both would answer at a-b-c.demo.
    older = model_deployment("x", model="a-b", environment="c", traffic={"x-1": 100})
    newer = model_deployment(
        "y", model="a", environment="b-c", traffic={"y-1": 100}, created="2025-06-01T00:00:00Z"
    )
    state = full_state(_catalog(newer, older), settings=SETTINGS)
    table = _unpacked_routes(state)
    domains = [domain for host in table.virtual_hosts for domain in host.domains]
    assert len(domains) == len(set(domains))
    owner = next(h for h in table.virtual_hosts if "a-b-c.demo.models.test" in h.domains)
    assert owner.routes[0].route.cluster == "demo/x/x-1"


def test_a_name_that_is_no_name_never_reaches_envoy() -> None:
    bad = model_deployment("iris", model="../other", traffic={"iris-1": 100})
    assert full_state(_catalog(bad), settings=SETTINGS) == full_state(_catalog(), settings=SETTINGS)


def _unpacked_routes(state):  # type: ignore[no-untyped-def]
    from beamlit_operator.gateway.protos import RouteConfiguration

    table = RouteConfiguration()
    state[ResourceType.ROUTES]["routes"].body.Unpack(table)
    return table
