"""What Prometheus reads of a deployment that was woken, on a whole cluster."""

import asyncio

from prometheus_client.parser import text_string_to_metric_families


async def test_a_cold_start_and_its_request_are_in_the_metrics_of_both(workspace):
    await workspace.quickstart(envs={"START_SECONDS": "1"})
    assert (await workspace.call())[0] == 200

    def figures(part: str) -> dict[tuple[str, ...], float]:
        """Values by name and labels, of this workspace."""
        return {
            (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(workspace.stack.metrics(part))
            for sample in family.samples
            if sample.labels.get("workspace") == workspace.name
        }

    def sum_of(found: dict[tuple[str, ...], float], name: str, *values: str) -> float:
        return sum(
            value for key, value in found.items() if key[0] == name and set(values) <= set(key)
        )

    def complete() -> bool:
        gateway, operator = figures("gateway"), figures("operator")
        return (
            sum_of(gateway, "beamlit_gateway_requests_total", "200", "tiny", "production") == 1
            and sum_of(gateway, "beamlit_gateway_cold_starts_total", "ready") == 1
            and sum_of(gateway, "beamlit_gateway_cold_start_phase_seconds_count", "wake") == 1
            and sum_of(gateway, "beamlit_gateway_cold_start_phase_seconds_sum", "start") >= 1
            and sum_of(gateway, "beamlit_gateway_replica_seconds_total") > 0
            and sum_of(operator, "beamlit_start_phase_seconds_count", "load") == 1
            and sum_of(operator, "beamlit_replica_seconds_total", "cpu:x86") > 0
        )

    async with asyncio.timeout(60):
        while not await asyncio.to_thread(complete):
            await asyncio.sleep(0.2)
