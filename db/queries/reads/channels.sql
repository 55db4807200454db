-- name: scope_tenant
-- Narrows row security to one tenant until the end of the transaction.
select set_config('zapwatch.tenant_id', $1, true);

-- name: list_channel_ids
-- One page of the ids of channels that fit the filters, in the order of ids; null filters let all through.
select c.channel_id
from zapwatch_channels c
join notification_channels n on n.id = c.channel_id
join zapwatch_states s on s.channel_id = c.channel_id
where not c.removed and n.deleted_at is null
  and ($1::uuid is null or c.tenant_id = $1)
  and ($2::uuid is null or c.gateway_id = $2)
  and ($3::text is null or split_part(s.state, '/', 1) = $3)
  and (not $4::boolean or exists (
    select from whatsapp_connection_incidents i where i.channel_id = c.channel_id and i.resolved_at is null))
  and ($5::text is null
    or strpos(lower(concat_ws(' ', c.name, c.instance, n.phone_number)), lower($5)) > 0)
  and ($6::uuid is null or c.channel_id > $6)
order by c.channel_id
limit $7;

-- name: show_channels
-- Everything shown of these channels but their gateways, in the order of ids.
select c.channel_id, c.tenant_id, c.gateway_id, c.provider, c.instance, c.name, c.api_key is not null as keyed,
  c.paused_at is not null as paused, c.created_at, c.expires_at, c.payment_status,
  n.phone_number, n.profile_name, n.last_connected_at, n.error_message, n.metadata::text as metadata,
  t.locale, t.defaults::text as defaults,
  s.state, s.reason, s.status, s.since, s.first_unhealthy_at, s.last_event_at, s.probed_at, s.probe_due_at,
  case when s.state = 'open' or s.reason = 'open_but_dead' then z.suspected_at end as suspected_at,
  i.id as incident_id, i.kind as incident_kind, i.started_at as incident_started_at,
  i.notified_at as incident_notified_at, coalesce(h.incidents, 0) as incidents_7d, now() as now
from zapwatch_channels c
join notification_channels n on n.id = c.channel_id
join zapwatch_states s on s.channel_id = c.channel_id
left join tenants t on t.id = c.tenant_id
left join zapwatch_suspicions z on z.channel_id = c.channel_id
left join whatsapp_connection_incidents i on i.channel_id = c.channel_id and i.resolved_at is null
left join lateral (
  select count(*) as incidents from whatsapp_connection_incidents w
  where w.channel_id = c.channel_id and w.started_at >= now() - interval '7 days'
) h on true
where c.channel_id = any($1::uuid[]) and ($2::uuid is null or c.tenant_id = $2)
  and not c.removed and n.deleted_at is null
order by c.channel_id;

-- name: read_states
-- The states of these channels.
select channel_id, state from zapwatch_states where channel_id = any($1::uuid[]);

-- name: read_gateway_facts
-- Addresses of gateways and whether they have a key, apart from channels because a tenant can't see gateways.
select id, base_url, api_key is not null as keyed from zapwatch_gateways where id = any($1::uuid[]);

-- name: channel_visible
-- Whether there is such a channel, not deleted, and of this tenant.
select exists (
  select from zapwatch_channels c join notification_channels n on n.id = c.channel_id
  where c.channel_id = $1 and ($2::uuid is null or c.tenant_id = $2) and not c.removed and n.deleted_at is null);

-- name: list_events
-- One page of a channel's events, newest first.
select id, source, name, trigger, reason, status, at, last_at, received_at, last_received_at, count, deliveries,
  split_part(state, '/', 1) as state, data::text as data
from zapwatch_events
where channel_id = $1 and ($2::uuid is null or tenant_id = $2) and ($3::bigint is null or id < $3)
order by id desc
limit $4;

-- name: list_incidents
-- One page of the incidents that fit the filters, newest first, those of deleted channels included.
select i.id, i.tenant_id, i.channel_id, i.provider, i.kind, i.last_state, i.details::text as details, i.started_at,
  i.resolved_at, i.duration_seconds, i.opened_at, i.notified_at, i.notification_count, i.acknowledged_at
from whatsapp_connection_incidents i
join zapwatch_channels c on c.channel_id = i.channel_id
where ($1::uuid is null or i.tenant_id = $1)
  and ($2::uuid is null or i.channel_id = $2)
  and ($3::uuid is null or c.gateway_id = $3)
  and ($4::text is null or i.kind = $4)
  and ($5::boolean is null or (i.resolved_at is null) = $5)
  and ($6::timestamptz is null or i.started_at >= $6)
  and ($7::timestamptz is null or i.started_at < $7)
  and ($8::timestamptz is null or (i.started_at, i.id) < ($8, $9::uuid))
order by i.started_at desc, i.id desc
limit $10;

-- name: list_channel_incidents
-- One page of a channel's incidents that are open or began since then, newest first.
select i.id, i.tenant_id, i.channel_id, i.provider, i.kind, i.last_state, i.details::text as details, i.started_at,
  i.resolved_at, i.duration_seconds, i.opened_at, i.notified_at, i.notification_count, i.acknowledged_at
from whatsapp_connection_incidents i
join zapwatch_channels c on c.channel_id = i.channel_id
where i.channel_id = $1 and ($2::uuid is null or i.tenant_id = $2)
  and (i.resolved_at is null or i.started_at >= now() - $3::interval)
  and ($4::timestamptz is null or (i.started_at, i.id) < ($4, $5::uuid))
order by i.started_at desc, i.id desc
limit $6;

-- name: show_incident
-- One incident.
select i.id, i.tenant_id, i.channel_id, i.provider, i.kind, i.last_state, i.details::text as details, i.started_at,
  i.resolved_at, i.duration_seconds, i.opened_at, i.notified_at, i.notification_count, i.acknowledged_at
from whatsapp_connection_incidents i
join zapwatch_channels c on c.channel_id = i.channel_id
where i.id = $1 and ($2::uuid is null or i.tenant_id = $2);

-- name: list_gateways
-- One page of gateways in the order of ids; those without an address only hold unconfigured channels.
select g.id, g.provider, g.base_url, g.name, g.version, g.state, g.since,
  i.id as incident_id, i.started_at as incident_started_at, i.affected as incident_affected, i.cause as incident_cause,
  i.acknowledged_at as incident_acknowledged_at
from zapwatch_gateways g
left join zapwatch_gateway_incidents i on i.gateway_id = g.id and i.resolved_at is null
where g.base_url <> '' and ($1::uuid is null or g.id > $1)
order by g.id
limit $2;

-- name: show_gateway
-- One gateway.
select g.id, g.provider, g.base_url, g.name, g.version, g.state, g.since,
  i.id as incident_id, i.started_at as incident_started_at, i.affected as incident_affected, i.cause as incident_cause,
  i.acknowledged_at as incident_acknowledged_at
from zapwatch_gateways g
left join zapwatch_gateway_incidents i on i.gateway_id = g.id and i.resolved_at is null
where g.id = $1 and g.base_url <> '';

-- name: count_gateway_channels
-- How many channels of these gateways are in which state.
select c.gateway_id, split_part(s.state, '/', 1) as state, count(*) as channels
from zapwatch_channels c
join notification_channels n on n.id = c.channel_id
join zapwatch_states s on s.channel_id = c.channel_id
where c.gateway_id = any($1::uuid[]) and not c.removed and n.deleted_at is null
group by 1, 2;

-- name: count_channels
-- How many channels there are by provider and state, and how many of them have an open incident, for the metrics.
select c.provider, split_part(s.state, '/', 1) as state, count(*) as channels, count(i.channel_id) as incidents
from zapwatch_states s
join zapwatch_channels c on c.channel_id = s.channel_id
join notification_channels n on n.id = c.channel_id
left join whatsapp_connection_incidents i on i.channel_id = c.channel_id and i.resolved_at is null
where not c.removed and n.deleted_at is null
group by 1, 2;

-- name: oldest_due
-- The longest due of the probes and of the deadlines that are due; looks at one channel of each gateway that isn't down.
select
  (select min(w.probe_due_at)
   from zapwatch_gateways g
   cross join lateral (
     select s.probe_due_at
     from zapwatch_states s
     where s.gateway_id = g.id and s.probe_due_at <= $1
     order by s.probe_due_at
     limit 1
   ) w
   where g.try_at is null) as probe,
  (select min(due_at) from zapwatch_states where due_at <= $1) as deadline;

-- name: list_tenants
-- One page of tenants in the order of ids.
select id, name, locale, time_zone, defaults::text as defaults, created_at, updated_at from tenants
where ($1::uuid is null or id = $1) and ($2::uuid is null or id > $2)
order by id
limit $3;
