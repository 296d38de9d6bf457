"""An Envoy that hangs is noticed, one that is busy is not."""

from __future__ import annotations

from beamlit_operator.gateway.health import ENVOY_SILENT, PATIENCE, EnvoyPulse


class Envoy:
    def __init__(self) -> None:
        self.now = 0.0
        self.up = True
        self.pulse = EnvoyPulse(self._answers, clock=lambda: self.now)

    async def _answers(self, within: float) -> bool:
        if not self.up:
            self.now += within
        return self.up


async def test_a_hung_envoy_is_told_of_after_a_while() -> None:
    envoy = Envoy()
    assert await envoy.pulse.hung() == ""
    envoy.up = False
    for _ in range(int(ENVOY_SILENT / PATIENCE) - 1):
        assert await envoy.pulse.hung() == ""
    assert "not answered" in await envoy.pulse.hung()


async def test_an_envoy_that_was_busy_once_starts_afresh() -> None:
    envoy = Envoy()
    for _ in range(10):
        envoy.up = False
        assert await envoy.pulse.hung() == ""
        envoy.up = True
        envoy.now += ENVOY_SILENT
        assert await envoy.pulse.hung() == ""


async def test_the_first_question_after_a_long_time_condemns_nobody() -> None:
    envoy = Envoy()
    envoy.now, envoy.up = 1000.0, False
    assert await envoy.pulse.hung() == ""
