"""The webhook of an operator, put together from its options."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from prometheus_client import CollectorRegistry

from beamlit_operator.controllers.admission.keeper import (
    DirectoryCertificates,
    Keeper,
    OwnCertificates,
)
from beamlit_operator.controllers.admission.picture import Picture
from beamlit_operator.controllers.admission.server import Webhook
from beamlit_operator.controllers.options import Options
from beamlit_operator.kube import KubeClient


def webhook(
    client: KubeClient,
    options: Options,
    *,
    picture: Picture,
    synced: Callable[[], bool],
    registry: CollectorRegistry,
    clock: Callable[[], datetime],
) -> Webhook:
    """The webhook that ``options.webhook_listen`` asks for."""
    keeper: Keeper
    if options.webhook_cert_dir:
        keeper = DirectoryCertificates(Path(options.webhook_cert_dir))
    else:
        keeper = OwnCertificates(
            client,
            namespace=options.operator_namespace,
            configuration=options.webhook_configuration,
            names=options.webhook_names,
            clock=clock,
        )
    return Webhook(
        client,
        listen=options.webhook_listen,
        picture=picture,
        keeper=keeper,
        synced=synced,
        registry=registry,
    )
