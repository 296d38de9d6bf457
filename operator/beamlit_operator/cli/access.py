"""The commands for who may call: ``beamlit apikey ...`` and ``beamlit token``."""

from __future__ import annotations

from typing import Annotated

import typer

from beamlit_operator.cli.arguments import Kubeconfig, Namespace, complete

apikey_app = typer.Typer(
    no_args_is_help=True, help="Keys for callers that have no identity of the cluster's."
)


def add_to(app: typer.Typer) -> None:
    """Adds the commands to the program."""
    app.add_typer(apikey_app, name="apikey")
    app.command("token")(token)


@apikey_app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="What the key is for, such as `ci`.")],
    deployment: Annotated[
        list[str] | None,
        typer.Option(
            "--deployment", "-d", help="A ModelDeployment it may call; again for more. None: all."
        ),
    ] = None,
    expires: Annotated[
        str | None, typer.Option("--expires", help="How long it is good: 30m, 12h, 90d.")
    ] = None,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Make a key and print it, this once: the cluster keeps its hash only."""
    from beamlit_operator.cli.apikeys import create_command
    from beamlit_operator.cli.cluster import Target

    complete(
        create_command(
            name,
            Target(kubeconfig, namespace),
            deployments=tuple(deployment or ()),
            expires=expires,
        )
    )


@apikey_app.command("list")
def list_(namespace: Namespace = None, kubeconfig: Kubeconfig = None) -> None:
    """Show the keys of a workspace: names, what they may call, when they end."""
    from beamlit_operator.cli.apikeys import list_command
    from beamlit_operator.cli.cluster import Target

    complete(list_command(Target(kubeconfig, namespace)))


@apikey_app.command("revoke")
def revoke(
    which: Annotated[str, typer.Argument(help="The key's name or id.")],
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Take a key back. Within a minute no gateway takes it any more."""
    from beamlit_operator.cli.apikeys import revoke_command
    from beamlit_operator.cli.cluster import Target

    complete(revoke_command(which, Target(kubeconfig, namespace)))


def token(
    account: Annotated[str, typer.Argument(help="The ServiceAccount that calls.")],
    audience: Annotated[
        str, typer.Option("--audience", help="Who the token is for; the gateway's own name.")
    ] = "beamlit",
    seconds: Annotated[
        int, typer.Option("--seconds", min=600, max=86_400, help="How long it is good.")
    ] = 3600,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Print a token of a ServiceAccount, to call endpoints with."""
    from beamlit_operator.cli.cluster import Target
    from beamlit_operator.cli.credentials import token_command

    complete(
        token_command(account, Target(kubeconfig, namespace), audience=audience, seconds=seconds)
    )
