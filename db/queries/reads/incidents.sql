-- name: list_incidents
-- One page of the incidents that fit the filters, newest first, those of deleted channels included: of channels ($11), of
-- gateways ($12), or of both in one order. What only channels have ($1 tenant, $2 channel, $4 kind) filters only these.
with of_channels as (
  select i.id, 'channel' as subject, i.tenant_id, i.channel_id, c.gateway_id, i.provider, i.kind, i.last_state,
    i.details::text as details, i.started_at, i.resolved_at, i.duration_seconds, i.opened_at, i.notified_at,
    i.notification_count, i.acknowledged_at, null::text as cause, null::int as affected,
    c.name as channel_name, t.name as tenant_name
  from whatsapp_connection_incidents i
  join zapwatch_channels c on c.channel_id = i.channel_id
  left join tenants t on t.id = i.tenant_id
  where $11::boolean
    and ($1::uuid is null or i.tenant_id = $1)
    and ($2::uuid is null or i.channel_id = $2)
    and ($3::uuid is null or c.gateway_id = $3)
    and ($4::text is null or i.kind = $4)
    and ($5::boolean is null or (i.resolved_at is null) = $5)
    and ($6::timestamptz is null or i.started_at >= $6)
    and ($7::timestamptz is null or i.started_at < $7)
    and ($8::timestamptz is null or (i.started_at, i.id) < ($8, $9::uuid))
  order by i.started_at desc, i.id desc
  limit $10
), of_gateways as (
  select i.id, 'gateway' as subject, null::uuid as tenant_id, null::uuid as channel_id, i.gateway_id, g.provider, i.cause as kind,
    null::text as last_state, i.details::text as details, i.started_at, i.resolved_at, i.duration_seconds, i.opened_at,
    i.notified_at, i.notification_count, i.acknowledged_at, i.cause, i.affected,
    null::text as channel_name, null::text as tenant_name
  from zapwatch_gateway_incidents i
  join zapwatch_gateways g on g.id = i.gateway_id
  where $12::boolean
    and ($3::uuid is null or i.gateway_id = $3)
    and ($5::boolean is null or (i.resolved_at is null) = $5)
    and ($6::timestamptz is null or i.started_at >= $6)
    and ($7::timestamptz is null or i.started_at < $7)
    and ($8::timestamptz is null or (i.started_at, i.id) < ($8, $9::uuid))
  order by i.started_at desc, i.id desc
  limit $10
)
select * from of_channels union all select * from of_gateways
order by started_at desc, id desc
limit $10;

-- name: list_channel_incidents
-- One page of a channel's incidents that are open or began since then, newest first.
select i.id, 'channel' as subject, i.tenant_id, i.channel_id, c.gateway_id, i.provider, i.kind, i.last_state,
  i.details::text as details, i.started_at, i.resolved_at, i.duration_seconds, i.opened_at, i.notified_at,
  i.notification_count, i.acknowledged_at, null::text as cause, null::int as affected,
  c.name as channel_name, t.name as tenant_name
from whatsapp_connection_incidents i
join zapwatch_channels c on c.channel_id = i.channel_id
left join tenants t on t.id = i.tenant_id
where i.channel_id = $1 and ($2::uuid is null or i.tenant_id = $2)
  and (i.resolved_at is null or i.started_at >= now() - $3::interval)
  and ($4::timestamptz is null or (i.started_at, i.id) < ($4, $5::uuid))
order by i.started_at desc, i.id desc
limit $6;

-- name: show_incident
-- One incident, of a channel or, for readers of all tenants, of a gateway.
select i.id, 'channel' as subject, i.tenant_id, i.channel_id, c.gateway_id, i.provider, i.kind, i.last_state,
  i.details::text as details, i.started_at, i.resolved_at, i.duration_seconds, i.opened_at, i.notified_at,
  i.notification_count, i.acknowledged_at, null::text as cause, null::int as affected,
  c.name as channel_name, t.name as tenant_name
from whatsapp_connection_incidents i
join zapwatch_channels c on c.channel_id = i.channel_id
left join tenants t on t.id = i.tenant_id
where i.id = $1 and ($2::uuid is null or i.tenant_id = $2)
union all
select i.id, 'gateway' as subject, null::uuid as tenant_id, null::uuid as channel_id, i.gateway_id, g.provider, i.cause as kind,
  null::text as last_state, i.details::text as details, i.started_at, i.resolved_at, i.duration_seconds, i.opened_at,
  i.notified_at, i.notification_count, i.acknowledged_at, i.cause, i.affected,
  null::text as channel_name, null::text as tenant_name
from zapwatch_gateway_incidents i
join zapwatch_gateways g on g.id = i.gateway_id
where i.id = $1 and $2::uuid is null;
