"""Checks of what people have made: origins, objects that are not Ready, workspaces."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from beamlit_operator.api import conditions
from beamlit_operator.api.reasons import Reason
from beamlit_operator.api.remedies import NOTHING, REMEDIES
from beamlit_operator.cli.doctor.cluster import some
from beamlit_operator.cli.doctor.findings import Finding, ok, problem, warning
from beamlit_operator.cli.doctor.picture import Picture
from beamlit_operator.kube import Json
from beamlit_operator.workloads.presets import extended

MESSAGE = 300
"""Characters of an object's message that are shown."""

ON_THE_WAY = frozenset({Reason.STARTING, Reason.RESOLVING, Reason.ROLLING_OUT})


def origins(picture: Picture) -> Iterator[Finding]:
    """Whether the places that models come from can be read, as the Models say."""
    found = picture.models.known()
    known = {id(m): _condition(m, conditions.READY).get("status") for m in found}
    bad = [m for m in found if known[id(m)] == "False" and _reason(m) not in ON_THE_WAY]
    yield from _told(bad, of="Model")
    yield from _unseen(found, "Model")
    if good := sum(each == "True" for each in known.values()):
        told = _count(good, "other Model" if bad else "Model")
        yield ok(f"{told}, of each the files can be found")
    elif not found:
        yield ok("no Model")


def prefetches(picture: Picture) -> Iterator[Finding]:
    """Whether Models with `spec.prefetch` have a cache that their files can be fetched into."""
    found = [m for m in picture.models.known() if (m.get("spec") or {}).get("prefetch")]
    by_message: defaultdict[tuple[bool, str], list[str]] = defaultdict(list)
    for each in found:
        status = (each.get("status") or {}).get("prefetch") or {}
        failed = status.get("phase") == "Failed"
        # What waits for its turn has a folder already; what waits for its origin is told there.
        homeless = (
            status.get("phase") == "Pending"
            and not status.get("folder")
            and _condition(each, conditions.READY).get("status") == "True"
        )
        if failed or homeless:
            by_message[failed, _short(status.get("message"))].append(_place(each))
    for (failed, message), places in sorted(by_message.items()):
        told = f"Model {some(places)}: {message}"
        if failed:
            yield problem(told, _remedy(Reason.PREFETCH_FAILED))
        else:
            yield warning(told, "Files are fetched at each start until then (docs/cache.md).")
    if found and not by_message:
        yield ok(f"{_count(len(found), 'Model')} with `prefetch`, none of them stuck")
    elif not found:
        yield ok("no Model with `prefetch`")


def runtimes(picture: Picture) -> Iterator[Finding]:
    """Whether the rows that ConfigMaps add to the runtime table can be used."""
    found = picture.runtimes.known()
    table = extended({each["metadata"]["name"]: each.get("data") or {} for each in found})
    for each in table.problems:
        yield warning(str(each), "Correct it; `beamlit runtimes -f FILE` checks it before.")
    if not table.problems:
        added = f", with the rows of {_count(len(found), 'ConfigMap')}" if found else ""
        yield ok(f"{len(table.presets)} types{added}")


def deployments(picture: Picture) -> Iterator[Finding]:
    """Whether deployments are Ready, and those that are go on."""
    yield from _state(picture.deployments.known(), "ModelDeployment")


def environments(picture: Picture) -> Iterator[Finding]:
    """Whether Environments and Policies can be enforced."""
    yield from _state(picture.environments.known(), "Environment")
    yield from _state(picture.policies.known(), "Policy")


def workspaces(picture: Picture) -> Iterator[Finding]:
    """Whether every workspace with deployments or models has an Environment to put them in."""
    used = {_namespace(each) for each in (*picture.models.known(), *picture.deployments.known())}
    ready = {_namespace(each) for each in picture.environments.known()}
    if lacking := sorted(used - ready):
        yield warning(
            f"models, but no Environment: {some(lacking)}",
            "Create one in each, such as `production`: nothing is placed without.",
        )
    elif used:
        yield ok(f"{len(used)} in use, with an Environment")
    else:
        yield ok("nobody has made a model yet")


def _state(found: list[Json], kind: str) -> Iterator[Finding]:
    waiting = [m for m in found if _condition(m, conditions.READY).get("status") == "False"]
    moving = [m for m in waiting if _reason(m) in ON_THE_WAY]
    unseen = [_place(m) for m in found if not _condition(m, conditions.READY)]
    yield from _told([m for m in waiting if m not in moving], of=kind)
    yield from _unseen(found, kind)
    held_up = [
        m for m in found if m not in waiting and _condition(m, conditions.STALLED).get("status")
    ]
    for each in held_up:
        told = _condition(each, conditions.STALLED)
        yield warning(
            f"{kind} {_place(each)} serves, but is held up: {told.get('reason')}: "
            f"{_short(told.get('message'))}",
            _remedy(str(told.get("reason"))),
        )
    fine = len(found) - len(waiting) - len(unseen)
    if found and fine == len(found) and not held_up:
        yield ok(f"{_count(len(found), kind)}, {'all ' if len(found) > 1 else ''}Ready")
    elif moving:
        yield ok(f"{_count(len(moving), kind)} on the way: {some([_place(m) for m in moving])}")
    elif not found:
        yield ok(f"no {kind}")


def _unseen(found: list[Json], kind: str) -> Iterator[Finding]:
    unseen = [_place(m) for m in found if not _condition(m, conditions.READY)]
    if unseen:
        yield warning(
            f"not looked at by any operator: {kind} {some(unseen)}",
            "Check that an operator leads, and that `operator.namespaces` lists their namespaces.",
        )


def _told(found: list[Json], *, of: str) -> Iterator[Finding]:
    """One finding for each reason, with the first object's message."""
    by_reason: defaultdict[str, list[Json]] = defaultdict(list)
    for each in found:
        by_reason[_reason(each)].append(each)
    for reason, those in sorted(by_reason.items()):
        told = _short(_condition(those[0], conditions.READY).get("message"))
        names = some([_place(each) for each in those])
        yield problem(f"{of} {names}: {reason}: {told}", _remedy(reason))


def _remedy(reason: str) -> str:
    known = next((REMEDIES[each] for each in Reason if each == reason), "")
    return "" if known == NOTHING else known


def _condition(item: Json, type_: str) -> Json:
    for each in (item.get("status") or {}).get("conditions") or ():
        if each.get("type") == type_:
            return dict(each)
    return {}


def _reason(item: Json) -> str:
    return str(_condition(item, conditions.READY).get("reason") or "")


def _short(text: object) -> str:
    line = " ".join(str(text or "").split())
    return line if len(line) <= MESSAGE else line[: MESSAGE - 3] + "..."


def _namespace(item: Json) -> str:
    return str(item["metadata"].get("namespace", ""))


def _place(item: Json) -> str:
    return f"{_namespace(item)}/{item['metadata']['name']}"


def _count(count: int, kind: str) -> str:
    plural = f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"
    return f"1 {kind}" if count == 1 else f"{count} {plural}"
