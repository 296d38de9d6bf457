"""What is kept of revisions that served, and of those that were to serve."""

from __future__ import annotations

from datetime import timedelta

from tests.support.rollouts import START

from beamlit_operator.api.modeldeployment import ModelDeploymentSpec
from beamlit_operator.rollout import Ending
from beamlit_operator.rollout.history import defining, released_from, served, written


def after(history, *endings, serving, desired=None, seconds=0, spec=None, released=None):
    return written(
        history,
        endings=endings,
        serving=serving,
        desired=desired or serving,
        versions={name: f"v-{name}" for name in ("a", "b", "c")},
        spec=spec,
        released=released,
        now=START + timedelta(seconds=seconds),
    )


def test_each_takeover_is_an_entry_newest_first_and_the_list_is_bounded():
    history = after((), serving="a")
    for number in range(30):
        name = f"r{number}"
        took = Ending("x", "Superseded", f"{name} took over"), Ending(name, "Serving", "", START)
        history = after(history, *took, serving=name, seconds=number)
    assert len(history) == 10
    assert [each.revision for each in history[:2]] == ["r29", "r28"]
    assert [each.outcome for each in history] == ["Serving"] + ["Superseded"] * 9
    assert all(each.ended_at for each in history[1:])


def test_failures_never_push_out_the_one_that_serves():
    history = after((), serving="a")
    for number in range(30):
        bad = Ending(f"r{number}", "Failed", "it crashed", START)
        history = after(history, bad, serving="a", desired=f"r{number}")
    assert len(history) == 10
    assert (history[-1].revision, history[-1].outcome) == ("a", "Serving")
    assert history[0].reason == "it crashed"


def test_nothing_new_changes_nothing():
    history = after((), serving="a", spec={"version": "1"})
    assert after(history, serving="a", spec={"version": "1"}, seconds=600) == history


def test_what_defines_a_revision_is_kept_as_it_was_last_written():
    history = after((), serving="a", spec={"version": "main"})
    history = after(history, serving="a", spec={"version": "0123abc"})
    assert [each.spec for each in history] == [{"version": "0123abc"}]
    kept = after(history, serving="a", desired="b", spec={"version": "2"})
    assert kept[0].spec == {"version": "0123abc"}


def test_a_history_that_was_lost_begins_anew_with_what_serves():
    (entry,) = after((), serving="a", desired="b", spec={"version": "2"})
    assert (entry.revision, entry.version, entry.outcome) == ("a", "v-a", "Serving")
    assert entry.spec is None


def test_only_what_served_and_was_superseded_served():
    history = after((), serving="a")
    took = Ending("a", "Superseded", ""), Ending("b", "Serving", "", START)
    history = after(history, *took, serving="b")
    assert served(history, "a")
    assert not served(history, "b")
    history = after(history, Ending("a", "Aborted", "", START), serving="b")
    assert not served(history, "a")
    assert not served(history, "z")


def test_a_spec_that_is_too_large_is_left_out():
    spec = ModelDeploymentSpec.model_validate(
        {"model": "m", "version": "1", "serverlessConfig": {"maxNumReplicas": 3}}
    )
    assert defining(spec) == {"version": "1"}
    large = {"metadata": {"annotations": {"text": "x" * 20_000}}}
    assert defining(spec.model_copy(update={"pod_template": large})) is None


def test_where_it_was_released_from_is_copied_from_the_annotations():
    prefix = "beamlit.com/released"
    told = released_from({f"{prefix}-from": "development", f"{prefix}-by": "ada"})
    assert told is not None
    assert told.to_wire() == {"environment": "development", "by": "ada"}
    assert released_from({f"{prefix}-by": "ada"}) is None
    (entry,) = after((), serving="a", released=told)
    assert entry.released_from == told
