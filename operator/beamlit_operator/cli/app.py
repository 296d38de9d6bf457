"""The commands of ``beamlit``: what they are called and what they take.

Each imports what it needs when it runs, so that no command waits for another's libraries.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from beamlit_operator.cli import access, lifecycle
from beamlit_operator.cli.arguments import Kubeconfig, Namespace, complete
from beamlit_operator.cli.errors import FAILED, CommandError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
get_app = typer.Typer(no_args_is_help=True, help="Show models or deployments as a table.")
policy_app = typer.Typer(no_args_is_help=True, help="Explain what policies decide.")
app.add_typer(get_app, name="get")
app.add_typer(policy_app, name="policy")
lifecycle.add_to(app)
access.add_to(app)


def _version(asked: bool) -> None:
    if asked:
        version()
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A serverless, governed inference platform on Kubernetes."""


Files = Annotated[
    list[Path] | None,
    typer.Option("--filename", "-f", help="Manifests or folders of them, or - for stdin."),
]
CatalogueFile = Annotated[
    Path | None,
    typer.Option("--catalogue", help="The ConfigMap with the cluster's own regions and flavors."),
]
DataDir = Annotated[Path, typer.Option("--data-dir", help="Where the cluster keeps its files.")]


def run(arguments: Sequence[str]) -> int:
    """Runs a command; failures become a sentence on stderr and an exit status."""
    try:
        app(args=list(arguments), prog_name="beamlit")
    except CommandError as failure:
        print(f"beamlit: {failure.message}", file=sys.stderr)
        return failure.status
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    except BrokenPipeError:
        # Whoever read our output has seen enough. Python must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("BEAMLIT_DEBUG"):
            raise
        print(
            f"beamlit: unexpected {type(error).__name__}: {error}\n"
            "This is a bug. BEAMLIT_DEBUG=1 shows where it happens.",
            file=sys.stderr,
        )
        return FAILED
    return 0


@app.command()
def dev(
    data_dir: DataDir = Path(".beamlit"),
    api_port: Annotated[
        int, typer.Option(min=0, max=65535, help="The API server's port; 0: any free one.")
    ] = 0,
    gateway_port: Annotated[
        int,
        typer.Option(
            min=0, max=65535, help="The gateway's port; the next free one if it is taken."
        ),
    ] = 8080,
    samples: Annotated[
        bool, typer.Option("--samples", help="Also run an S3 store that holds the sample models.")
    ] = False,
    authentication: Annotated[
        bool,
        typer.Option("--authentication", help="Callers need a token and a right, as in a cluster."),
    ] = False,
    cache_claim: Annotated[
        str,
        typer.Option(
            "--cache-claim",
            metavar="NAME",
            help="Fetch models' files once, into the claim of this name of each namespace that "
            "has one.",
        ),
    ] = "",
    reset: Annotated[
        bool, typer.Option("--reset", help="Forget the cluster's contents first.")
    ] = False,
) -> None:
    """Run a cluster on this machine, with the operator and the gateway, until Ctrl-C.

    For laptops, demos and tests, never for production.
    """
    from beamlit_operator.cli.dev import dev_command
    from beamlit_operator.cli.parts import DevSettings

    settings = DevSettings(
        data_dir=data_dir,
        api_port=api_port,
        gateway_port=gateway_port,
        samples=samples,
        authentication=authentication,
        cache_claim=cache_claim,
    )
    complete(dev_command(settings, reset=reset))


@app.command()
def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the logs even when all went well.")
    ] = False,
) -> None:
    """Show the whole of it on this machine: policy, a cold start, a warm request, zero again."""
    from beamlit_operator.cli.demo import demo_command

    complete(demo_command(keep=keep))


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)
def fetch(context: typer.Context) -> None:
    """Fetch a model's files from its origin (what the init container runs)."""
    from beamlit_operator.origins.__main__ import main

    raise typer.Exit(main(context.args, prog="beamlit fetch"))


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)
def cache(context: typer.Context) -> None:
    """List or tidy a cache of models' files (what the operator's tidying pod runs)."""
    from beamlit_operator.origins.cache_command import main

    raise typer.Exit(main(context.args, prog="beamlit cache"))


@get_app.command("models")
def get_models(
    namespace: Namespace = None,
    every: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Of all.")] = False,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Models, and which version of each runs in which environment."""
    from beamlit_operator.cli.cluster import Target
    from beamlit_operator.cli.listing import show_models

    complete(show_models(Target(kubeconfig, namespace), everywhere=every))


@get_app.command("deployments")
def get_deployments(
    namespace: Namespace = None,
    every: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Of all.")] = False,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Deployments, whether they are ready, and where they answer."""
    from beamlit_operator.cli.cluster import Target
    from beamlit_operator.cli.listing import show_deployments

    complete(show_deployments(Target(kubeconfig, namespace), everywhere=every))


@app.command()
def status(
    name: Annotated[str, typer.Argument(help="A ModelDeployment, or else a Model.")],
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Everything about one deployment or model: conditions, revisions, policies."""
    from beamlit_operator.cli.cluster import Target
    from beamlit_operator.cli.status import show_status

    complete(show_status(name, Target(kubeconfig, namespace)))


@app.command()
def invoke(
    model: Annotated[str, typer.Argument(help="The Model to call.")],
    data: Annotated[
        str, typer.Option("--data", "-d", help="The request body: JSON, @FILE, or @- for stdin.")
    ],
    environment: Annotated[str, typer.Option("--environment", "-e")] = "production",
    path: Annotated[
        str | None, typer.Option(help="Path on the model server; /v2/models/MODEL/infer if unset.")
    ] = None,
    token: Annotated[
        str | None, typer.Option("--token", help="A token or API key; $BEAMLIT_TOKEN if unset.")
    ] = None,
    service_account: Annotated[
        str | None,
        typer.Option("--service-account", help="Call as this ServiceAccount of the workspace."),
    ] = None,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Send one inference request and print the answer."""
    from beamlit_operator.cli.cluster import Target
    from beamlit_operator.cli.invoke import invoke_command

    complete(
        invoke_command(
            model,
            Target(kubeconfig, namespace),
            environment=environment,
            data=data,
            path=path,
            token=token,
            account=service_account,
        )
    )


@policy_app.command("explain")
def policy_explain(
    name: Annotated[str, typer.Argument(help="The ModelDeployment.")],
    namespace: Namespace = None,
    files: Files = None,
    output: Annotated[Literal["table", "json"], typer.Option("--output", "-o")] = "table",
    catalogue: CatalogueFile = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Say where and on what a deployment may run, and what became of each policy.

    With -f from the manifests alone, without a cluster. Exit status: 0 compliant, 1 not compliant,
    2 bad input.
    """
    from beamlit_operator.cli.cluster import Target
    from beamlit_operator.cli.explain import explain_command

    complete(
        explain_command(
            name,
            Target(kubeconfig, namespace),
            files=tuple(files or ()),
            output=output,
            catalogue=catalogue,
        )
    )


@app.command()
def render(
    files: Annotated[
        list[Path],
        typer.Option("--filename", "-f", help="Manifests or folders of them, or - for stdin."),
    ],
    namespace: Annotated[str | None, typer.Option("--namespace", "-n")] = None,
    catalogue: CatalogueFile = None,
) -> None:
    """Print the objects that the operator would apply for these manifests, without a cluster.

    What a revision is depends on the model's files, so their origin is asked for them.
    """
    from beamlit_operator.cli.render import render_command

    complete(render_command(tuple(files), namespace, catalogue=catalogue))


@app.command()
def runtimes(
    files: Files = None,
    output: Annotated[Literal["table", "json"], typer.Option("--output", "-o")] = "table",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show the runtime presets, and where each row comes from.

    With -f those of the manifests' ConfigMaps, without a cluster. Exit status: 1 if rows cannot be
    used.
    """
    from beamlit_operator.cli.cluster import Target
    from beamlit_operator.cli.runtimes import runtimes_command

    complete(runtimes_command(Target(kubeconfig, None), files=tuple(files or ()), output=output))


@app.command()
def console(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The page's port; 0: any free one.")
    ] = 8090,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Serve a read-only page that shows models and deployments as they are now."""
    from beamlit_operator.cli.cluster import require_configuration

    require_configuration(kubeconfig)
    # The console is a program of its own; it takes our place.
    command = [sys.executable, "-m", "beamlit_operator.console", "--port", str(port)]
    for flag, value in (("--kubeconfig", kubeconfig), ("--namespace", namespace)):
        if value is not None:
            command += [flag, str(value)]
    os.execv(command[0], command)  # noqa: S606


@app.command()
def pull(
    image: Annotated[str, typer.Argument(help="The image.")] = "docker.io/seldonio/mlserver",
) -> None:
    """Install what stands for an image on the embedded cluster, before a pod needs it."""
    from beamlit_operator.cli.images import pull_command

    complete(pull_command(image))


@app.command()
def doctor(
    namespace: Annotated[
        str | None,
        typer.Option("--namespace", "-n", help="Look at this workspace only; all by default."),
    ] = None,
    output: Annotated[Literal["table", "json"], typer.Option("--output", "-o")] = "table",
    system_namespace: Annotated[
        str | None, typer.Option(help="Where operator and gateway are; found by itself.")
    ] = None,
    gateway: Annotated[
        str | None, typer.Option(help="Where callers reach the gateway; found by itself.")
    ] = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Check the installation from the ground up, and say what to fix.

    Nothing is changed. Works with any rights: checks that need more say so. Exit status: 0 no
    problem (there may be warnings), 1 problems.
    """
    from beamlit_operator.cli.cluster import Target
    from beamlit_operator.cli.doctor.command import doctor_command

    complete(
        doctor_command(
            Target(kubeconfig, namespace), output=output, system=system_namespace, gateway=gateway
        )
    )


@app.command("support-bundle")
def support_bundle(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to make, a .tar.gz.")
    ] = None,
    namespace: Annotated[
        str | None,
        typer.Option("--namespace", "-n", help="Of this workspace only; of all by default."),
    ] = None,
    system_namespace: Annotated[
        str | None, typer.Option(help="Where operator and gateway are.")
    ] = None,
    log_dir: Annotated[
        Path | None, typer.Option(help="Also logs of processes: the folder `beamlit dev` prints.")
    ] = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Collect what helps others to find out what is wrong, without any secret."""
    from beamlit_operator.cli.bundle.command import bundle_command
    from beamlit_operator.cli.cluster import Target

    complete(
        bundle_command(
            Target(kubeconfig, namespace), output=output, system=system_namespace, log_dir=log_dir
        )
    )


@app.command()
def version() -> None:
    """Print the version."""
    from beamlit_operator import __version__

    print(__version__)
