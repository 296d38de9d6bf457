"""What the operator process can be told, by flags or by environment variables."""

from __future__ import annotations

import argparse
import os
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version as package_version
from typing import Literal
from urllib.parse import urlsplit

from beamlit_operator.autoscaling.config import DEFAULT_GRACE_SECONDS
from beamlit_operator.controllers.admission.configuration import NAME, SERVICE
from beamlit_operator.origins.sizes import size
from beamlit_operator.policy.extending import CONFIG_MAP
from beamlit_operator.workloads.outgoing import PROXY_VARIABLES, Outgoing

IMAGE_REPOSITORY = "ghcr.io/beamlit/beamlit-operator"


_ANY = ("", "0.0.0.0", "::")  # noqa: S104 (addresses that are no name)


def default_image() -> str:
    """This project's image, of the version that runs."""
    return f"{IMAGE_REPOSITORY}:{package_version('beamlit-operator')}"


@dataclass(frozen=True, slots=True)
class Options:
    """All that an operator needs to know. Seconds are floats; addresses are ``host:port``."""

    kubeconfig: str | None = None
    """As kubectl's; None is $KUBECONFIG, the default file, or the pod's service account."""
    namespaces: tuple[str, ...] = ()
    """The workspaces to serve; empty is all."""
    gateway_url: str = "http://beamlit-gateway.beamlit-system.svc.cluster.local"
    """Where consumers reach the gateway: the start of every `status.url`."""
    gateway_load: tuple[str, ...] = ()
    """URLs of the gateways' load reports, for the autoscaler."""
    scale_to_zero_grace: float = DEFAULT_GRACE_SECONDS
    """Seconds that the last replica stays after it was found idle for its stable window."""
    operator_namespace: str = "beamlit-system"
    """The namespace of the operator, of its Lease and of the gateway's Service."""
    cluster_domain: str = "cluster.local"
    """The domain of the cluster's DNS."""
    image: str = ""
    """This project's image, which fetches model files."""
    outgoing: Outgoing = field(default_factory=Outgoing)
    """How the fetching of models gets out of the cluster."""
    cache_claim: str = ""
    """The PersistentVolumeClaim that holds a workspace's cache of files; empty: there are none."""
    cache_limit: str = ""
    """What the folders of a cache may take together, a quantity; empty: nothing is removed."""
    cache_tidy_pause: float = 600.0
    """Seconds between two times that one cache is tidied."""
    engine: Literal["native", "knative"] = "native"
    """What runs the workloads."""
    catalogue: str = CONFIG_MAP
    """The ConfigMap, in the operator's namespace, that adds to the catalogue."""
    listen: str = "127.0.0.1:8081"
    """Where `/healthz`, `/readyz` and `/metrics` answer; empty: nowhere."""
    webhook_listen: str = ""
    """Where the admission webhook answers, over TLS; empty: nowhere."""
    webhook_service: str = SERVICE
    """The Service in front of it, by whose DNS name the API server calls it."""
    webhook_configuration: str = NAME
    """The ValidatingWebhookConfiguration whose `caBundle` is written."""
    webhook_cert_dir: str = ""
    """A directory with tls.crt and tls.key that somebody else keeps; empty: certificates of the
    operator's own."""
    placement_guard: bool = False
    """Whether to write down where pods may be placed, for the ValidatingAdmissionPolicy."""
    leader_election: bool = True
    """Whether to hold a Lease while reconciling; needed as soon as two operators may run."""
    identity: str = ""
    """The name of this process as the Lease's holder."""
    workers: int = 8
    """Objects reconciled at the same time."""
    origin_resync: float = 600.0
    """Seconds after which an origin is looked at again."""
    allow_node_credentials: bool = False
    """Whether a Model may have its files read with the identity of the node or the pod."""
    hub_endpoint: str | None = None
    """The Hugging Face Hub, when it is a mirror."""
    prometheus_url: str = ""
    """The Prometheus that the queries of rollouts' analyses ask; empty: there is none."""
    prometheus_token_file: str = ""
    """A file with the token that it wants; read again for each query."""
    prometheus_ca_file: str = ""
    """A file with the authorities that signed its certificate; empty: the public ones."""
    resync: float = 600.0
    """Seconds after which everything is compared with the API server once more."""
    log_format: Literal["text", "json"] = "text"
    """One event per line, for people or for machines."""
    log_level: str = "info"
    """The least severity that is logged."""

    @property
    def webhook_names(self) -> tuple[str, ...]:
        """What the webhook's certificate is for: its Service, and a laptop's own address."""
        host = self.webhook_listen.rpartition(":")[0].strip("[]")
        service = f"{self.webhook_service}.{self.operator_namespace}.svc"
        names = [service, f"{service}.{self.cluster_domain}", "localhost", "127.0.0.1", "::1"]
        return tuple(names if host in (*_ANY, *names) else [*names, host])

    @property
    def gateway_service(self) -> str:
        """The DNS name of the gateway's Service in the cluster."""
        return f"beamlit-gateway.{self.operator_namespace}.svc.{self.cluster_domain}"


def parse(
    arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ
) -> Options:
    """The options on the command line, else in ``BEAMLIT_*`` variables, else the defaults.

    Raises:
        SystemExit: a flag is wrong; what is wrong is on standard error.
    """
    parser = argparse.ArgumentParser(
        prog="python -m beamlit_operator.controllers",
        description="The Beamlit operator: reconciles Models, ModelDeployments, Environments and "
        "Policies.",
    )
    usual = Options()

    def variable(flag: str) -> str:
        return "BEAMLIT_" + flag.removeprefix("--").replace("-", "_").upper()

    def option(
        flag: str,
        otherwise: object,
        *,
        kind: Callable[[str], object] = str,
        metavar: str | None = None,
        choices: Sequence[str] | None = None,
        help: str | None = None,
    ) -> None:
        # argparse has `kind` judge what a variable says, too: it is text.
        parser.add_argument(
            flag,
            default=environ.get(variable(flag), otherwise),
            type=kind,
            metavar=metavar,
            choices=choices,
            help=help,
        )

    def switch(flag: str, otherwise: bool, *, help: str | None = None) -> None:
        said = environ.get(variable(flag))
        default = otherwise if said is None else said.lower() in ("1", "true", "yes")
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=default, help=help)

    def env_list(name: str) -> list[str]:
        return [part.strip() for part in environ.get(name, "").split(",") if part.strip()]

    option("--kubeconfig", usual.kubeconfig)
    parser.add_argument(
        "--namespace", action="append", default=None, help="serve only this one (repeatable)"
    )
    option("--gateway-url", usual.gateway_url)
    parser.add_argument("--gateway-load", action="append", default=None, metavar="URL")
    option(
        "--scale-to-zero-grace",
        usual.scale_to_zero_grace,
        kind=_seconds,
        metavar="SECONDS",
        help="how long the last replica stays after an idle stable window",
    )
    option("--operator-namespace", usual.operator_namespace)
    option(
        "--cluster-domain",
        usual.cluster_domain,
        metavar="DOMAIN",
        help="the domain of the cluster's DNS",
    )
    option("--image", default_image())
    parser.add_argument(
        "--fetch-env",
        action="append",
        type=_proxy_variable,
        default=None,
        metavar="NAME=VALUE",
        help=f"for the pods that fetch models, repeatable: {', '.join(PROXY_VARIABLES)}",
    )
    option(
        "--fetch-authorities",
        "",
        metavar="CONFIGMAP[:KEY]",
        help="a ConfigMap of each workspace with authorities that pods which fetch models trust",
    )
    option(
        "--cache-claim",
        usual.cache_claim,
        kind=_claim_name,
        metavar="NAME",
        help="a PersistentVolumeClaim of each workspace in which models' files are shared",
    )
    option(
        "--cache-limit",
        usual.cache_limit,
        kind=_limit,
        metavar="SIZE",
        help="what the files in it may take, such as 500Gi; what was used longest ago goes first",
    )
    option(
        "--cache-tidy-pause",
        usual.cache_tidy_pause,
        kind=_seconds,
        metavar="SECONDS",
        help="how often a cache is tidied at most",
    )
    option("--engine", usual.engine, choices=("native", "knative"))
    option(
        "--catalogue",
        usual.catalogue,
        metavar="CONFIGMAP",
        help="the ConfigMap in the operator's namespace with the cluster's own regions and flavors",
    )
    option("--listen", usual.listen, metavar="HOST:PORT")
    option(
        "--webhook-listen",
        usual.webhook_listen,
        metavar="HOST:PORT",
        help="serve the admission webhook here, over TLS",
    )
    option("--webhook-service", usual.webhook_service)
    option(
        "--webhook-configuration",
        usual.webhook_configuration,
        metavar="NAME",
        help="the ValidatingWebhookConfiguration whose caBundle is written",
    )
    option(
        "--webhook-cert-dir",
        usual.webhook_cert_dir,
        metavar="DIR",
        help="use tls.crt and tls.key of this directory, such as cert-manager's",
    )
    switch(
        "--placement-guard",
        usual.placement_guard,
        help="write down where pods may be placed, for the ValidatingAdmissionPolicy",
    )
    switch("--leader-election", usual.leader_election)
    option("--identity", environ.get("POD_NAME", ""))
    option("--workers", usual.workers, kind=_count)
    option("--origin-resync", usual.origin_resync, kind=_seconds, metavar="SECONDS")
    switch(
        "--allow-node-credentials",
        usual.allow_node_credentials,
        help="let Models be read with the identity of the node or the pod (nodeCredentials)",
    )
    option(
        "--hub-endpoint",
        environ.get("HF_ENDPOINT", ""),
        metavar="URL",
        help="the Hugging Face Hub, when it is a mirror",
    )
    option(
        "--prometheus-url",
        usual.prometheus_url,
        kind=_address_of_prometheus,
        metavar="URL",
        help="the Prometheus that the queries of rollouts' analyses ask",
    )
    option(
        "--prometheus-token-file",
        usual.prometheus_token_file,
        metavar="FILE",
        help="has the token that Prometheus wants",
    )
    option(
        "--prometheus-ca-file",
        usual.prometheus_ca_file,
        metavar="FILE",
        help="has the authorities that signed its certificate",
    )
    option("--resync", usual.resync, kind=_seconds, metavar="SECONDS")
    option("--log-format", usual.log_format, choices=("text", "json"))
    option("--log-level", usual.log_level, choices=("debug", "info", "warning", "error"))
    given = parser.parse_args(arguments)
    return Options(
        kubeconfig=given.kubeconfig,
        namespaces=tuple(given.namespace or env_list("BEAMLIT_NAMESPACES")),
        gateway_url=given.gateway_url.rstrip("/"),
        gateway_load=tuple(given.gateway_load or env_list("BEAMLIT_GATEWAY_LOAD")),
        scale_to_zero_grace=given.scale_to_zero_grace,
        operator_namespace=given.operator_namespace,
        cluster_domain=given.cluster_domain.strip("."),
        image=given.image,
        outgoing=_outgoing(given.fetch_env or (), given.fetch_authorities),
        cache_claim=given.cache_claim,
        cache_limit=given.cache_limit,
        cache_tidy_pause=given.cache_tidy_pause,
        engine=given.engine,
        catalogue=given.catalogue,
        listen=given.listen,
        webhook_listen=given.webhook_listen,
        webhook_service=given.webhook_service,
        webhook_configuration=given.webhook_configuration,
        webhook_cert_dir=given.webhook_cert_dir,
        placement_guard=given.placement_guard,
        leader_election=given.leader_election,
        identity=given.identity or f"{socket.gethostname()}-{os.getpid()}",
        workers=given.workers,
        origin_resync=given.origin_resync,
        hub_endpoint=given.hub_endpoint or None,
        allow_node_credentials=given.allow_node_credentials,
        prometheus_url=given.prometheus_url,
        prometheus_token_file=given.prometheus_token_file,
        prometheus_ca_file=given.prometheus_ca_file,
        resync=given.resync,
        log_format=given.log_format,
        log_level=given.log_level,
    )


def _outgoing(variables: Sequence[tuple[str, str]], authorities: str) -> Outgoing:
    name, _, key = authorities.partition(":")
    return Outgoing(variables=dict(variables), authorities=name, key=key or Outgoing().key)


def _proxy_variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or name not in PROXY_VARIABLES:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not NAME=VALUE with a NAME of {', '.join(PROXY_VARIABLES)}"
        )
    return name, value


def _claim_name(text: str) -> str:
    if text and re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no name of a PersistentVolumeClaim")
    return text


def _limit(text: str) -> str:
    if text:
        size(text)
    return text


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return number


def _address_of_prometheus(text: str) -> str:
    if not text:
        return ""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise argparse.ArgumentTypeError(f"{text!r} is no URL: write http://HOST:PORT")
    if "@" in parts.netloc:
        raise argparse.ArgumentTypeError(
            "no user and password in the URL: use --prometheus-token-file"
        )
    return text


def _seconds(text: str) -> float:
    number = float(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} s is too short: use at least 1")
    return number
