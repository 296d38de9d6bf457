"""The commands about versions: release, rollout, history, activate and deactivate, delete."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from beamlit_operator.cli.arguments import Kubeconfig, Namespace, complete

if TYPE_CHECKING:
    from beamlit_operator.cli.orders import Verb

rollout_app = typer.Typer(
    no_args_is_help=True, help="Look at the rollout of a deployment, and give it orders."
)
delete_app = typer.Typer(no_args_is_help=True, help="Delete a model, unless it is in use.")

Name = Annotated[str, typer.Argument(help="A ModelDeployment, or a Model.")]
Environment = Annotated[
    str | None, typer.Option("--environment", "-e", help="Which one, where NAME is a Model.")
]
Chosen = Annotated[
    str | None,
    typer.Argument(help="A ModelDeployment, or a Model; the one rollout under way if unset."),
]
ForceConflicts = Annotated[
    bool,
    typer.Option(
        "--force-conflicts", help="Also change what a GitOps tool declares; it may put it back."
    ),
]


def add_to(app: typer.Typer) -> None:
    """Adds the commands to the program."""
    for command in (release, history, activate, deactivate):
        app.command()(command)
    for order in (status, promote, pause, resume, abort, undo):
        rollout_app.command()(order)
    app.add_typer(rollout_app, name="rollout")
    delete_app.command("model")(delete_model)
    app.add_typer(delete_app, name="delete")


def release(
    model: Annotated[str, typer.Argument(help="The Model.")],
    source: Annotated[str, typer.Option("--from", help="The environment that has the version.")],
    destination: Annotated[str, typer.Option("--to", help="The environment that gets it.")],
    with_policies: Annotated[
        bool, typer.Option("--with-policies", help="Also the deployment's own policies.")
    ] = False,
    name: Annotated[
        str | None, typer.Option("--name", help="What a new ModelDeployment is called.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show and check all of it, and change nothing.")
    ] = False,
    output: Annotated[
        Literal["yaml"] | None,
        typer.Option("--output", "-o", help="Print the manifest, for Git, and change nothing."),
    ] = None,
    force_conflicts: ForceConflicts = False,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Put the version that runs in one environment into another.

    The version is the files' revision, the runtime and the pod template. Scaling, flavors and the
    endpoint's settings stay those of the destination.
    """
    from beamlit_operator.cli.cluster import Target
    from beamlit_operator.cli.release import release_command

    complete(
        release_command(
            model,
            Target(kubeconfig, namespace),
            source=source,
            destination=destination,
            with_policies=with_policies,
            name=name,
            dry_run=dry_run,
            output=output,
            force_conflicts=force_conflicts,
        )
    )


def status(
    name: Chosen = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Until the rollout has ended.")
    ] = False,
    environment: Environment = None,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show who gets how many of the requests, the step, the analysis and the history.

    Exit status: 1 if the rollout ended badly, else 0.
    """
    from beamlit_operator.cli.cluster import Target
    from beamlit_operator.cli.rollout import status_command

    complete(
        status_command(name, Target(kubeconfig, namespace), environment=environment, watch=watch)
    )


def promote(
    name: Chosen = None,
    full: Annotated[
        bool, typer.Option("--full", help="All requests to the new revision now.")
    ] = False,
    environment: Environment = None,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Approve the step at which a rollout waits."""
    verb: Literal["promote", "promote --full"] = "promote --full" if full else "promote"
    _order(name, environment, namespace, kubeconfig, verb=verb)


def pause(
    name: Chosen = None,
    environment: Environment = None,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Go no further until resumed; what has traffic keeps it."""
    _order(name, environment, namespace, kubeconfig, verb="pause")


def resume(
    name: Chosen = None,
    environment: Environment = None,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Let a rollout that was paused by hand go on."""
    _order(name, environment, namespace, kubeconfig, verb="resume")


def abort(
    name: Chosen = None,
    environment: Environment = None,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Give all requests back to the stable revision, at once."""
    _order(name, environment, namespace, kubeconfig, verb="abort")


def undo(
    name: Chosen = None,
    to: Annotated[
        str | None, typer.Option("--to", help="A revision of the history; the last good one.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show and check it, and change nothing.")
    ] = False,
    environment: Environment = None,
    force_conflicts: ForceConflicts = False,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Put the spec of an earlier revision back."""
    from beamlit_operator.cli.cluster import Target
    from beamlit_operator.cli.rollout import undo_command

    complete(
        undo_command(
            name,
            Target(kubeconfig, namespace),
            environment=environment,
            to=to,
            dry_run=dry_run,
            force_conflicts=force_conflicts,
        )
    )


def history(
    name: Name,
    environment: Environment = None,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show the revisions that a deployment had, and what became of each."""
    from beamlit_operator.cli.cluster import Target
    from beamlit_operator.cli.rollout import history_command

    complete(history_command(name, Target(kubeconfig, namespace), environment=environment))


def _order(
    name: str | None,
    environment: str | None,
    namespace: str | None,
    kubeconfig: Path | None,
    *,
    verb: Verb,
) -> None:
    from beamlit_operator.cli.cluster import Target
    from beamlit_operator.cli.rollout import order_command

    complete(order_command(name, Target(kubeconfig, namespace), environment=environment, verb=verb))


def activate(
    name: Name,
    environment: Environment = None,
    force_conflicts: ForceConflicts = False,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Let a deactivated deployment answer again."""
    from beamlit_operator.cli.cluster import Target
    from beamlit_operator.cli.switching import switch_command

    complete(
        switch_command(
            name,
            Target(kubeconfig, namespace),
            environment=environment,
            enabled=True,
            force_conflicts=force_conflicts,
        )
    )


def deactivate(
    name: Name,
    environment: Environment = None,
    force_conflicts: ForceConflicts = False,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Stop a deployment: its endpoint answers 404, and nothing runs."""
    from beamlit_operator.cli.cluster import Target
    from beamlit_operator.cli.switching import switch_command

    complete(
        switch_command(
            name,
            Target(kubeconfig, namespace),
            environment=environment,
            enabled=False,
            force_conflicts=force_conflicts,
        )
    )


def delete_model(
    name: Annotated[str, typer.Argument(help="The Model.")],
    force: Annotated[
        bool, typer.Option("--force", help="Also while deployments of it exist.")
    ] = False,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Delete a Model that no deployment uses."""
    from beamlit_operator.cli.cluster import Target
    from beamlit_operator.cli.deleting import delete_model_command

    complete(delete_model_command(name, Target(kubeconfig, namespace), force=force))
