"""Metrics: what is noted is what Prometheus reads."""

import asyncpg

from db.apply import Applied
from receiver.metrics import Metrics


async def test_noted_work_is_exposed_even_without_a_database() -> None:
    metrics = Metrics()

    metrics.committed(Applied({}, ["error"], 2), 3, 0.004)
    metrics.webhook_answers.labels("wapi", "204").inc()
    async with asyncpg.create_pool("postgresql://nobody@/nothing?host=/does/not/exist", min_size=0) as away:
        text = (await metrics.expose(away)).decode()

    assert 'zapwatch_batch_entries_bucket{le="2.0"} 0.0' in text
    assert 'zapwatch_batch_entries_bucket{le="5.0"} 1.0' in text
    assert 'zapwatch_commit_seconds_bucket{le="0.005"} 1.0' in text
    assert "zapwatch_entries_applied_total 3.0" in text
    assert 'zapwatch_incidents_opened_total{kind="error"} 1.0' in text
    assert "zapwatch_incidents_resolved_total 2.0" in text
    assert 'zapwatch_webhook_answers_total{code="204",provider="wapi"} 1.0' in text
    assert "zapwatch_channels{" not in text


def test_two_services_in_one_process_do_not_share_numbers() -> None:
    one, two = Metrics(), Metrics()

    one.entries_applied.inc()

    assert two.registry.get_sample_value("zapwatch_entries_applied_total") == 0
