"""The work for a change is counted in steps of the interpreter: the same on every machine."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from tests.support.gatewayobjects import endpoint_slice, model_deployment

from beamlit_operator.gateway.ads import AdsStream
from beamlit_operator.gateway.catalog import Catalog
from beamlit_operator.gateway.protos import DeltaRequest
from beamlit_operator.gateway.resources import ResourceStore, ResourceType
from beamlit_operator.gateway.settings import GatewaySettings
from beamlit_operator.gateway.translation import Translator

SETTINGS = GatewaySettings(gateway_id="test", domain="models.test")


class Gateway:
    """An agent without its wires, and an Envoy that takes everything."""

    def __init__(self, deployments: int) -> None:
        self.catalog, self.store = Catalog(), ResourceStore()
        for number in range(deployments):
            name = f"m{number}"
            body = model_deployment(name, model=name, traffic={f"{name}-1": 100})
            self.catalog.put_deployment("demo", name, body)
            self.ready(number, "127.0.0.1")
        self.translator = Translator(self.catalog, settings=SETTINGS)
        self.store.apply(self.translator.start())
        self.stream = AdsStream(self.store)
        self.store.subscribe(self.stream.changed)
        for type_ in (ResourceType.CLUSTER, ResourceType.LISTENER):
            self.stream.receive(DeltaRequest(type_url=type_.value))
        names = {
            ResourceType.ENDPOINTS: list(self.store[ResourceType.ENDPOINTS]),
            ResourceType.ROUTES: ["routes"],
        }
        for type_, asked in names.items():
            request = DeltaRequest(type_url=type_.value, resource_names_subscribe=asked)
            self.stream.receive(request)
        assert self.exchange() > 3
        assert self.stream.configured

    def ready(self, number: int, host: str) -> set[Any]:
        body = endpoint_slice(f"m{number}-1", [(host, 8080)], deployment=f"m{number}")
        return self.catalog.put_slice("demo", body["metadata"]["name"], body)

    def exchange(self) -> int:
        sent = 0
        while responses := self.stream.next_responses():
            for response in responses:
                sent += len(response.resources)
                self.stream.receive(
                    DeltaRequest(type_url=response.type_url, response_nonce=response.nonce)
                )
        return sent

    def change(self, number: int) -> None:
        """A pod of one deployment has another address, and Envoy has it."""
        self.store.apply(self.translator.update((), self.ready(number, "127.0.0.2")))
        assert self.exchange() == 1
        assert len(self.catalog.awake()) > number


def steps_of(work: Callable[[], None]) -> int:
    steps = 0

    def step(frame: FrameType, event: str, _: object) -> Any:
        nonlocal steps
        frame.f_trace_opcodes = True
        steps += event == "opcode"
        return step

    before = sys.gettrace()
    sys.settrace(step)
    try:
        work()
    finally:
        sys.settrace(before)
    return steps


def test_a_pods_change_costs_the_same_with_ten_deployments_as_with_hundreds() -> None:
    few, many = Gateway(10), Gateway(300)
    for gateway in (few, many):
        gateway.change(1)
    expected = steps_of(lambda: few.change(7))
    assert expected > 100
    assert steps_of(lambda: many.change(7)) <= expected * 1.1
