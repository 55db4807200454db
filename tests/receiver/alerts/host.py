"""A gateway of the tests with channels of tenants, and what rows say of its incident."""

from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from receiver.alerts.message import Message
from receiver.alerts.notifiers.texts import text_of
from tests.receiver.alerts.desk import Desk


@dataclass
class Host:
    """A gateway of several tenants, and what rows say of its incident."""

    desk: Desk
    id: UUID
    incident: UUID | None = None
    channels: dict[str, UUID] = field(default_factory=dict)

    async def channel(self, tenant: UUID, name: str, has_been_open: bool = True) -> UUID:
        """Register a channel here that is open, or was never."""
        id = await self.desk.channel(tenant, name)
        await self.desk.connection.execute(
            "update zapwatch_channels set gateway_id = $1, instance = $2 where channel_id = $3",
            self.id,
            name,
            id,
        )
        await self.desk.connection.execute(
            "update zapwatch_states set gateway_id = $1, state = $3, since = now() - interval '1 day', "
            "memory = jsonb_build_object('has_been_open', $4::boolean) where channel_id = $2",
            self.id,
            id,
            "open" if has_been_open else "connecting",
            has_been_open,
        )
        self.channels[name] = id
        return id

    async def falls(self, cause: str = "unreachable", tell_after: float = 30, details: str = "{}") -> None:
        """Open the gateway's incident, which affects all channels; each is down from now on."""
        self.incident = await self.desk.connection.fetchval(
            "insert into zapwatch_gateway_incidents "
            "(gateway_id, cause, affected, started_at, opened_at, details) "
            "values ($1, $2, $3, now(), now(), $4::jsonb) returning id",
            self.id,
            cause,
            len(self.channels),
            details,
        )
        await self.desk.connection.execute(
            "insert into zapwatch_alerts (gateway_incident_id, kind, due_at, not_before) "
            "values ($1, 'opened', now() + $2::interval, now() + $2::interval)",
            self.incident,
            timedelta(seconds=tell_after),
        )
        await self.desk.connection.execute(
            "update zapwatch_gateways set state = 'down', tried_at = now(), failed_at = now() where id = $1",
            self.id,
        )
        await self.desk.connection.execute(
            "insert into zapwatch_affected_channels (gateway_incident_id, channel_id, tenant_id) "
            "select $1, channel_id, tenant_id from zapwatch_channels where gateway_id = $2",
            self.incident,
            self.id,
        )
        await self.desk.connection.execute(
            "update zapwatch_states set state = 'error', reason = 'gateway_unreachable', since = now(), "
            "first_unhealthy_at = now() where gateway_id = $1",
            self.id,
        )

    async def opens(self, *names: str) -> list[UUID]:
        """Open incidents of channels with the cause."""
        details = (
            '{"reason": "gateway_unreachable", "cause": "gateway", '
            f'"gateway_incident_id": "{self.incident}"}}'
        )
        return [
            await self.desk.connection.fetchval(
                "select incident_id from zapwatch_incidents_open("
                "array[$1::uuid], array['error'], array[null], array[$2::jsonb], array[now()], array[now()])",
                self.channels[name],
                details,
            )
            for name in names
        ]

    async def returns(self) -> None:
        """End the gateway's incident."""
        await self.desk.connection.execute(
            "update zapwatch_gateway_incidents set resolved_at = now(), duration_seconds = 0 where id = $1",
            self.incident,
        )
        await self.desk.connection.execute(
            "insert into zapwatch_alerts (gateway_incident_id, kind) values ($1, 'resolved')", self.incident
        )

    async def back(self, *names: str) -> None:
        """Have channels be open again."""
        for name in names:
            await self.desk.connection.execute(
                "update zapwatch_states set state = 'open', reason = null, since = now(), "
                "first_unhealthy_at = null where channel_id = $1",
                self.channels[name],
            )
            await self.desk.resolve(self.channels[name])

    async def settles(self, settles_for: timedelta | None) -> None:
        """Have the gateway's channels be expected back for so long from now on; None: no longer."""
        await self.desk.connection.execute(
            "update zapwatch_gateways set state = 'up', settles_until = now() + $2::interval where id = $1",
            self.id,
            settles_for,
        )

    async def loses_cause(self, name: str, state: str = "error", reason: str = "unreachable") -> None:
        """Take away the cause of a channel's incident."""
        await self.desk.connection.execute(
            "update zapwatch_states set state = $2, reason = $3 where channel_id = $1",
            self.channels[name],
            state,
            reason,
        )
        await self.desk.connection.execute(
            "update whatsapp_connection_incidents set "
            "details = (details - 'cause' - 'gateway_incident_id') || jsonb_build_object('reason', $2::text) "
            "where channel_id = $1 and resolved_at is null",
            self.channels[name],
            reason,
        )


def read(told: list[tuple[str, Message]], name: str) -> list[str]:
    """Return the subjects that a destination of people read, in English."""
    return [text_of(message._replace(locale="en")).subject for to, message in told if to == name]


async def town(host: Host) -> UUID:
    """Make a tenant with three channels here, whose people and programs are told, and operators."""
    tenant = await host.desk.tenant(locale="en")
    for name in ("Um", "Dois", "Três"):
        await host.channel(tenant, name)
    await host.desk.destination(tenant, "ana", "letters")
    await host.desk.destination(tenant, "prog", "sink")
    events = ["incident.opened", "incident.resolved", "gateway.opened", "gateway.resolved"]
    await host.desk.destination(None, "ops", "letters", events=events)
    return tenant
