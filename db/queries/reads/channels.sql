-- name: list_channel_ids
-- One page of the ids of channels that fit the filters, in the order of ids; null filters let all through.
select c.channel_id
from zapwatch_channels c
join notification_channels n on n.id = c.channel_id
join zapwatch_states s on s.channel_id = c.channel_id
where not c.removed and n.deleted_at is null
  and ($1::uuid is null or c.tenant_id = $1)
  and ($2::uuid is null or c.gateway_id = $2)
  and ($3::text[] is null or split_part(s.state, '/', 1) = any ($3))
  and (not $4::boolean or exists (
    select from whatsapp_connection_incidents i where i.channel_id = c.channel_id and i.resolved_at is null))
  and ($5::text is null
    or strpos(lower(concat_ws(' ', c.name, c.instance, n.phone_number)), lower($5)) > 0)
  and (not $6::boolean or (
    s.state not in ('open', 'unknown') and s.memory @> '{"has_been_open": true}'
    and c.paused_at is null and n.is_active))
  and (not $7::boolean or not s.memory @> '{"has_been_open": true}')
  and ($8::uuid is null or c.channel_id > $8)
order by c.channel_id
limit $9;

-- name: show_channels
-- Everything shown of these channels but their gateways, in the order of ids.
select c.channel_id, c.tenant_id, c.gateway_id, c.provider, c.instance, c.name, c.api_key is not null as keyed,
  c.paused_at is not null as paused, c.created_at, c.expires_at, c.payment_status,
  n.phone_number, n.profile_name, n.last_connected_at, n.error_message, n.metadata::text as metadata,
  t.locale, t.defaults::text as defaults,
  s.state, s.reason, s.status, s.since, s.first_unhealthy_at, s.last_event_at, s.fresh_at, s.probed_at, s.probe_due_at,
  not s.memory @> '{"has_been_open": true}' as never_connected,
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
-- What channels show of their gateways, apart from channels because a tenant can't see gateways. `failed_at` is when the
-- newest failed trial of one that is down began.
select g.id, g.base_url, g.api_key is not null as keyed, g.name, g.state, g.since, i.id as incident_id,
  case when g.state = 'down' then g.failed_at end as failed_at
from zapwatch_gateways g
left join zapwatch_gateway_incidents i on i.gateway_id = g.id and i.resolved_at is null
where g.id = any($1::uuid[]);

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
