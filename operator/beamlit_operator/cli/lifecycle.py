"""The commands about versions: release, activate and deactivate, delete."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from beamlit_operator.cli.arguments import Kubeconfig, Namespace, complete

delete_app = typer.Typer(no_args_is_help=True, help="Delete a model, unless it is in use.")

Name = Annotated[str, typer.Argument(help="A ModelDeployment, or a Model.")]
Environment = Annotated[
    str | None, typer.Option("--environment", "-e", help="Which one, where NAME is a Model.")
]
ForceConflicts = Annotated[
    bool,
    typer.Option(
        "--force-conflicts", help="Also change what a GitOps tool declares; it may put it back."
    ),
]


def add_to(app: typer.Typer) -> None:
    """Adds the commands to the program."""
    for command in (release, activate, deactivate):
        app.command()(command)
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
