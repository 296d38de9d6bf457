"""The webhook as the API server calls it and as a person with kubectl hears of it."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from tests.integration.controllers.conftest import TEAM, Lab
from tests.support.stack import free_port

from beamlit_operator.controllers.admission import certificates, keeper
from beamlit_operator.controllers.admission.configuration import (
    CONFIGURATIONS,
    NAME,
    by_url,
    configuration,
)
from beamlit_operator.kube import (
    DEPLOYMENTS,
    ENVIRONMENTS,
    MODEL_DEPLOYMENTS,
    NAMESPACES,
    POLICIES,
    SECRETS,
    Json,
)

POLICIES_AND_MODEL = """
apiVersion: beamlit.com/v1alpha1
kind: Policy
metadata: {name: us-only}
spec: {type: location, locations: [{type: country, name: us}]}
---
apiVersion: beamlit.com/v1alpha1
kind: Policy
metadata: {name: australia}
spec: {type: location, locations: [{type: country, name: au}]}
---
apiVersion: beamlit.com/v1alpha1
kind: Environment
metadata: {name: production}
spec: {policies: [{name: us-only, mandatory: true}]}
---
apiVersion: beamlit.com/v1alpha1
kind: Model
metadata: {name: iris}
spec: {origin: {s3: {uri: "s3://models/iris"}}}
"""


def deployment(name: str, **spec: object) -> str:
    body = {
        "apiVersion": "beamlit.com/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "spec": {"model": "iris", **spec},
    }
    return json.dumps(body)


class Guarded:
    """A lab whose API server asks the operator's webhook."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.listen = f"127.0.0.1:{free_port()}"

    async def start(self, **more: object) -> None:
        await self.lab.start_operator(webhook_listen=self.listen, leader_election=False, **more)

    async def configure(self, **more: object) -> None:
        body = configuration(by_url(self.listen), **more)  # type: ignore[arg-type]
        await self.lab.client.apply(CONFIGURATIONS, body, field_manager="chart")

    async def bundle(self) -> bytes:
        found = await self.lab.client.get(CONFIGURATIONS, NAME)
        return base64.b64decode(found["webhooks"][0]["clientConfig"].get("caBundle", ""))

    async def kubectl(self, *arguments: str, stdin: str | None = None) -> tuple[int, str]:
        """The exit status, and what a person reads."""
        process = await asyncio.create_subprocess_exec(
            *("kubectl", "--kubeconfig", str(self.lab.kubeconfig), "-n", TEAM, *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate((stdin or "").encode())
        assert process.returncode is not None
        return process.returncode, output.decode()

    async def apply(self, text: str, *flags: str) -> tuple[int, str]:
        return await self.kubectl("apply", "-f", "-", *flags, stdin=text)

    async def shown(self, trusted: bytes) -> x509.Certificate:
        """The certificate that a new connection is shown, verified against ``trusted``."""
        context = ssl.create_default_context(cadata=trusted.decode())
        host, _, port = self.listen.rpartition(":")
        _, writer = await asyncio.open_connection(host, int(port), ssl=context)
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return x509.load_der_x509_certificate(der)


@pytest.fixture
async def guarded(lab: Lab) -> Guarded:
    guarded = Guarded(lab)
    await guarded.configure()
    await guarded.start()
    await lab.apply(POLICIES_AND_MODEL)
    return guarded


async def test_a_person_reads_why_and_what_to_do(guarded: Guarded) -> None:
    status, said = await guarded.apply(deployment("iris", withoutPolicies=["us-only"]))
    assert status == 1
    assert 'admission webhook "policy.beamlit.com" denied the request: ' in said
    assert (
        "ModelDeployment iris: policy us-only is mandatory in environment production and cannot "
        "be removed: it stays in force; take it out of spec.withoutPolicies" in said
    )
    status, said = await guarded.apply(
        deployment("iris", policies=[{"name": "australia"}]), "--dry-run=server"
    )
    assert status == 0
    assert "Warning: policy australia is overridden by us-only: " in said
    assert await guarded.lab.get(MODEL_DEPLOYMENTS, "iris") is None
    status, said = await guarded.apply(deployment("iris"))
    assert (status, said) == (0, "modeldeployment.beamlit.com/iris created\n")
    order = "beamlit.com/rollout-abort=iris-1"
    status, said = await guarded.kubectl("annotate", "modeldeployment", "iris", order)
    assert status == 1
    assert "annotation beamlit.com/rollout-abort: there is no revision iris-1" in said
    status, said = await guarded.apply(deployment("second"))
    assert "ModelDeployment iris already serves model iris in environment production" in said
    status, said = await guarded.kubectl("delete", "environment", "production")
    assert status == 1
    assert "Environment production is in use: 1 ModelDeployment in it" in said
    status, said = await guarded.kubectl("delete", "policy", "australia", "us-only")
    assert 'policy.beamlit.com "australia" deleted' in said
    assert "Policy us-only is in use: it is mandatory in environment production" in said


async def test_what_was_changed_a_moment_ago_counts_before_the_watch_tells(
    guarded: Guarded,
) -> None:
    client, operator = guarded.lab.client, guarded.lab.operator
    assert operator is not None
    status, _ = await guarded.apply(deployment("iris"))
    assert status == 0
    await guarded.lab.until(lambda: bool(operator.indexes.deployments), "the operator knows")
    # The operator hears nothing from now on, as when its watch is down.
    operator.indexes.put, put = (lambda *_, **__: None), operator.indexes.put  # type: ignore[method-assign]
    operator.indexes.remove, remove = (lambda *_, **__: None), operator.indexes.remove  # type: ignore[method-assign]
    await client.delete(MODEL_DEPLOYMENTS, "iris", TEAM)
    mandatory = {"spec": {"policies": [{"name": "us-only", "mandatory": False}]}}
    await client.merge_patch(ENVIRONMENTS, "production", mandatory, TEAM)
    operator.indexes.put, operator.indexes.remove = put, remove  # type: ignore[method-assign]
    status, said = await guarded.apply(deployment("second", withoutPolicies=["us-only"]))
    assert (status, said) == (0, "modeldeployment.beamlit.com/second created\n")


async def test_a_namespace_goes_with_all_that_is_in_use_in_it(guarded: Guarded) -> None:
    assert (await guarded.apply(deployment("iris")))[0] == 0
    status, said = await guarded.kubectl("delete", "namespace", TEAM, "--timeout=15s")
    assert status == 0, said


async def test_owners_finalizers_and_labels_are_never_in_the_way(guarded: Guarded) -> None:
    client = guarded.lab.client
    await guarded.lab.apply(deployment("iris"))
    # Tightened after the fact, so that the spec would be refused if it came now.
    await client.merge_patch(
        MODEL_DEPLOYMENTS,
        "iris",
        {"metadata": {"finalizers": ["example.com/x"], "labels": {"a": "b"}}},
        TEAM,
    )
    await client.delete(MODEL_DEPLOYMENTS, "iris", TEAM)
    await client.merge_patch(MODEL_DEPLOYMENTS, "iris", {"metadata": {"finalizers": []}}, TEAM)
    assert await guarded.lab.get(MODEL_DEPLOYMENTS, "iris") is None
    # Nobody is in the Environment any more.
    await client.delete(ENVIRONMENTS, "production", TEAM)


async def test_while_the_webhook_is_down_people_work_on_and_nothing_unsafe_is_placed(
    lab: Lab,
) -> None:
    guarded = Guarded(lab)
    await guarded.configure()
    # This operator serves no webhook: every call of the API server fails.
    await lab.start_operator()
    await lab.apply(POLICIES_AND_MODEL)
    flavor = {"type": "flavor", "flavors": [{"type": "gpu", "name": "t4"}]}
    body = {"apiVersion": "beamlit.com/v1alpha1", "kind": "Policy", "metadata": {"name": "t4"}}
    await lab.apply(json.dumps({**body, "spec": flavor}))
    attached = {"spec": {"policies": [{"name": n, "mandatory": True} for n in ("us-only", "t4")]}}
    await lab.client.merge_patch(ENVIRONMENTS, "production", attached, TEAM)
    status, said = await guarded.apply(
        deployment("iris", flavors=[{"type": "gpu", "name": "a100"}])
    )
    assert (status, said) == (0, "modeldeployment.beamlit.com/iris created\n")
    first = await lab.until_ready("FlavorNotAllowed")
    # Creation times have whole seconds, and which of two is the older must be clear.
    created = datetime.fromisoformat(first["metadata"]["creationTimestamp"])
    await lab.until(lambda: datetime.now(UTC) > created + timedelta(seconds=1), "a second later")
    assert (await guarded.apply(deployment("twin")))[0] == 0
    await lab.until_ready("Duplicate", "twin")
    await lab.settle()
    assert (await lab.client.list(DEPLOYMENTS, TEAM)).items == []


async def test_with_failure_policy_fail_nothing_passes_unseen(lab: Lab) -> None:
    guarded = Guarded(lab)
    await guarded.configure(failure_policy="Fail")
    status, said = await guarded.apply(deployment("iris"))
    assert status == 1
    assert "failed calling webhook" in said or "failed to call webhook" in said


async def test_only_the_ca_bundle_is_written_and_its_owner_sees_no_drift(
    guarded: Guarded,
) -> None:
    found = await guarded.lab.client.get(CONFIGURATIONS, NAME)
    fields = {each["manager"]: each["fieldsV1"] for each in found["metadata"]["managedFields"]}
    ours = fields[keeper.FIELD_MANAGER]["f:webhooks"]['k:{"name":"policy.beamlit.com"}']
    assert ours["f:clientConfig"] == {"f:caBundle": {}}
    assert set(ours) == {".", "f:clientConfig", "f:name"}
    # The chart applies again: the bundle stays.
    before = await guarded.bundle()
    await guarded.configure()
    assert before
    assert await guarded.bundle() == before


async def test_certificates_and_their_authority_rotate_while_it_serves(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper.OwnCertificates, "interval", 0.2)
    guarded = Guarded(lab)
    await guarded.configure()
    now = datetime.now(UTC)
    # An authority in its last third, and a certificate of it.
    old = certificates.new_authority(now - timedelta(days=600))
    serving = certificates.new_certificate(old, names=["127.0.0.1", "localhost"], now=now)
    bundle = certificates.Bundle(old, serving)
    await lab.client.create(SECRETS, keeper.fresh(bundle, "beamlit-system"), "beamlit-system")
    await guarded.start()

    async def trusts(count: int) -> bool:
        return (await guarded.bundle()).count(b"BEGIN CERTIFICATE") == count

    await lab.until(lambda: trusts(2), "both authorities are trusted")
    first = await guarded.shown(old.certificate)
    await lab.apply(POLICIES_AND_MODEL)
    # An hour later the new one signs.
    secret = await lab.client.get(SECRETS, keeper.SECRET, "beamlit-system")
    found = keeper.read(secret)
    assert found is not None
    assert found.next is not None
    aged = certificates.new_authority(now - timedelta(hours=2))
    later = certificates.Bundle(found.authority, found.serving, next=aged)
    await lab.client.update(SECRETS, {**secret, "data": keeper.written(later)})

    async def promoted() -> bool:
        try:
            shown = await guarded.shown(aged.certificate)
        except ssl.SSLError:
            return False
        return shown.serial_number != first.serial_number

    await lab.until(promoted, "a certificate of the new authority is served")
    await lab.until(lambda: trusts(2), "the old authority stays trusted")
    status, said = await guarded.apply(deployment("iris", withoutPolicies=["us-only"]))
    assert (status, "us-only is mandatory" in said) == (1, True)


async def test_two_operators_share_one_certificate(lab: Lab) -> None:
    guarded = Guarded(lab)
    await guarded.configure()
    other = f"127.0.0.1:{free_port()}"
    await lab.process("other", "--webhook-listen", other, "--no-leader-election")
    await guarded.start()

    async def same() -> bool:
        trusted = await guarded.bundle()
        second = Guarded(lab)
        second.listen = other
        try:
            mine, theirs = await guarded.shown(trusted), await second.shown(trusted)
        except OSError:
            return False
        return mine.serial_number == theirs.serial_number

    await lab.until(same, "both show the same certificate")


async def test_certificates_of_somebody_else_are_followed(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper.DirectoryCertificates, "interval", 0.1)
    now = datetime.now(UTC)
    authority = certificates.new_authority(now)

    def issue() -> x509.Certificate:
        pair = certificates.new_certificate(authority, names=["127.0.0.1"], now=now)
        (tmp_path / "tls.crt").write_bytes(pair.certificate)
        (tmp_path / "tls.key").write_bytes(pair.key)
        return x509.load_pem_x509_certificate(pair.certificate)

    guarded = Guarded(lab)
    await guarded.configure()
    first = issue()
    await guarded.start(webhook_cert_dir=str(tmp_path))
    assert (await guarded.shown(authority.certificate)).serial_number == first.serial_number
    second = issue()

    async def followed() -> bool:
        shown = await guarded.shown(authority.certificate)
        return shown.serial_number == second.serial_number

    await lab.until(followed, "the new certificate is served")
    assert await guarded.bundle() == b""


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"\xff\xfe", 400),
        (b"[" * 100_000, 400),
        (b"{}", 400),
        (b'{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1beta1"}', 400),
        (b"x" * (9 * 1024 * 1024), 413),
    ],
    ids=["nothing", "no text", "deep", "no review", "an old version", "too large"],
)
async def test_odd_input_is_answered_and_never_an_error_of_ours(
    lab: Lab, content: bytes, status: int
) -> None:
    guarded = Guarded(lab)
    await guarded.configure()
    await guarded.start()
    context = ssl.create_default_context(cadata=(await guarded.bundle()).decode())
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"https://{guarded.listen}/validate", data=io.BytesIO(content), ssl=context
        ) as reply,
    ):
        assert reply.status == status


async def test_a_policy_edit_says_what_it_does_before_it_does_it(guarded: Guarded) -> None:
    assert (await guarded.apply(deployment("iris", policies=[{"name": "us-only"}])))[0] == 0
    await guarded.lab.until_ready("Idle")
    elsewhere: Json = {"type": "location", "locations": [{"type": "country", "name": "jp"}]}
    body = {"apiVersion": "beamlit.com/v1alpha1", "kind": "Policy", "metadata": {"name": "us-only"}}
    status, said = await guarded.apply(json.dumps({**body, "spec": elsewhere}), "--dry-run=server")
    assert status == 0
    assert "Warning: 1 deployment then fits on no node that is there now: iris" in said
    assert (await guarded.lab.client.get(POLICIES, "us-only", TEAM))["spec"] != elsewhere
    assert (await guarded.lab.client.get(NAMESPACES, TEAM))["status"]["phase"] == "Active"
