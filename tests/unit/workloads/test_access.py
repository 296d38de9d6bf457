"""Who a fetching container is and whom it trusts: given to it alone, and no part of a revision."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import kubernetes_validate
import pytest
from tests.unit.workloads.test_native import (
    FILES,
    MODEL,
    SETTINGS,
    deployment,
    held_to,
    made,
    running,
)
from tests.unit.workloads.test_outgoing import fetcher, pod_of, variables

from beamlit_operator.workloads import Refusal, workload
from beamlit_operator.workloads.access import SKIP_CONTAINERS, Access, access_of
from beamlit_operator.workloads.cache import Cache, place_of

ROLE = "arn:aws:iam::111122223333:role/models"
WEB = Access(
    authorities=("our-ca", "all.pem"),
    service_account="reader",
    audience="sts.amazonaws.com",
    variables=(("AWS_ROLE_ARN", ROLE), ("AWS_ROLE_SESSION_NAME", "team.iris")),
    arguments=(("--addressing-style", "virtual"), ("--as-of", "2026-01-02T03:04:05Z")),
)
OTHER = replace(WEB, variables=(("AWS_ROLE_ARN", f"{ROLE}-2"),))


def given(access: Access, *, ready: int | None = None, live: Any = None, **more: Any) -> Any:
    workloads = running(live) if live is not None else None
    if workloads is not None and ready is not None:
        for each in workloads.values():
            each["status"] = {**each.get("status", {}), "readyReplicas": ready}
    return made(files=replace(FILES, access=access), live=workloads, **more)


def test_only_the_fetching_container_gets_the_token_and_the_authorities() -> None:
    result = given(WEB)
    pod = pod_of(result)
    mounted = {each["name"]: each["mountPath"] for each in fetcher(pod)["volumeMounts"]}
    told = variables(pod)
    assert told["AWS_ROLE_ARN"] == ROLE
    assert told["AWS_WEB_IDENTITY_TOKEN_FILE"] == f"{mounted['beamlit-identity']}/token"
    assert told["BEAMLIT_ORIGIN_CA_FILE"] == f"{mounted['beamlit-origin-authorities']}/ca.crt"
    volumes = {each["name"]: each for each in pod["volumes"]}
    (source,) = volumes["beamlit-identity"]["projected"]["sources"]
    assert source["serviceAccountToken"]["audience"] == "sts.amazonaws.com"
    certificates = volumes["beamlit-origin-authorities"]["configMap"]
    assert (certificates["name"], certificates["items"][0]["key"]) == ("our-ca", "all.pem")
    assert pod["serviceAccountName"] == "reader"
    assert pod["automountServiceAccountToken"] is False
    (server,) = pod["containers"]
    assert not {each["name"] for each in server["volumeMounts"]} & mounted.keys() - {
        "models",
        "tmp",
    }
    assert not [each for each in server["env"] if each["name"].startswith("AWS_")]
    assert fetcher(pod)["args"][-4:] == [
        *("--addressing-style", "virtual", "--as-of", "2026-01-02T03:04:05Z")
    ]
    kubernetes_validate.validate({**result.deployment}, "1.37", strict=True)


def test_amazons_webhook_is_told_to_leave_every_container_alone() -> None:
    template = {"spec": {"containers": [{"name": "sidecar", "image": "x"}]}}
    annotations = given(WEB, given=deployment(podTemplate=template)).deployment["spec"]["template"][
        "metadata"
    ]["annotations"]
    assert set(annotations[SKIP_CONTAINERS].split(",")) == {"fetch", "model", "sidecar"}
    assert SKIP_CONTAINERS not in str(made().deployment)


def test_what_was_given_can_be_read_back() -> None:
    assert access_of(pod_of(given(WEB)), "fetch") == WEB
    assert access_of(pod_of(made()), "fetch") == Access()


def test_access_makes_no_new_revision() -> None:
    assert given(WEB).revision == given(OTHER).revision == made().revision


@pytest.mark.parametrize(
    ("ready", "before", "now", "gets"),
    [
        (1, WEB, OTHER, WEB),
        (1, Access(), WEB, Access()),
        (0, WEB, OTHER, OTHER),
        (0, WEB, Access(), Access()),
        (0, Access(), WEB, WEB),
    ],
    ids=[
        "who serves keeps the role it has",
        "who serves gets no ServiceAccount it did not have",
        "a start that does not become ready gets the new role",
        "or none",
        "or one",
    ],
)
def test_pods_that_serve_keep_what_they_have_and_others_follow_the_model(
    ready: int, before: Access, now: Access, gets: Access
) -> None:
    result = given(now, live=given(before), ready=ready)
    assert access_of(pod_of(result), "fetch") == gets


def test_a_fetch_under_way_is_not_begun_anew_for_a_later_time_with_the_same_files() -> None:
    later = replace(WEB, arguments=(*WEB.arguments[:1], ("--as-of", "2026-05-05T00:00:00Z")))
    result = given(later, live=given(WEB), ready=0)
    assert access_of(pod_of(result), "fetch") == WEB


@pytest.mark.parametrize("field", ["serviceAccountName", "serviceAccount"])
def test_a_template_with_another_account_is_refused_by_name(field: str) -> None:
    refused = workload(
        deployment(podTemplate={"spec": {field: "mine"}}),
        MODEL,
        policy=held_to(),
        files=replace(FILES, access=WEB),
        settings=SETTINGS,
    )
    assert isinstance(refused, Refusal)
    for word in ("spec.podTemplate", "mine", "reader", "webIdentity"):
        assert word in refused.message


def test_a_template_with_the_same_account_is_fine() -> None:
    template = deployment(podTemplate={"spec": {"serviceAccountName": "reader"}})
    assert pod_of(given(WEB, given=template))["serviceAccountName"] == "reader"


def test_equal_files_are_one_folder_of_a_cache_whoever_fetches_them() -> None:
    folders = set()
    for access in (Access(), WEB, OTHER):
        made_with = workload(
            deployment(),
            MODEL,
            policy=held_to(),
            files=replace(FILES, access=access),
            settings=SETTINGS,
            cache=Cache("models", usable=True),
        )
        place = place_of(pod_of(made_with))
        assert place is not None
        folders.add(place.identity)
        assert access_of(pod_of(made_with), "fetch") == access
    assert len(folders) == 1
