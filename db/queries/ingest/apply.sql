-- name: lock_states
-- Lock the channels of a batch that no other session has locked; their other rows are read after, in a new snapshot.
select channel_id
from zapwatch_states
where channel_id = any ($1::uuid[])
order by channel_id
for no key update skip locked;

-- name: lock_shown
-- Lock the channels' rows that other applications read, those that no other session has locked.
select id
from notification_channels
where id = any ($1::uuid[])
order by id
for no key update skip locked;

-- name: read_channels
-- Read all that a step needs to know of the locked channels, with their open incident and newest event.
select
  s.channel_id, s.tenant_id, s.version, s.state, s.reason, s.status, s.since, s.first_unhealthy_at,
  s.last_event_at, s.emitted_at, s.fresh_at, s.probed_at, s.due_at, s.probe_due_at, s.recovery_due_at, s.told_rules,
  s.memory,
  z.gateway_id, z.paused_at is not null as paused, z.removed or n.deleted_at is not null or not n.is_active as removed,
  coalesce(z.api_key, g.api_key) is not null and g.base_url <> '' and z.instance is not null as configured,
  n.provider, n.metadata, n.last_health_check, n.phone_number::text as phone_number,
  n.profile_name::text as profile_name, t.defaults, t.locale::text as locale, g.clock,
  case when g.state = 'down' then g.failed_at end as gateway_failed_at, g.settles_until as gateway_settles_until,
  i.kind as incident_kind, i.last_state as incident_last_state, i.details as incident_details,
  i.started_at as incident_started_at, i.opened_at as incident_opened_at,
  e.id as event_id, e.source as event_source, e.name as event_name, e.trigger as event_trigger,
  e.reason as event_reason, e.status as event_status
from zapwatch_states s
join zapwatch_channels z using (channel_id)
join notification_channels n on n.id = s.channel_id
left join tenants t on t.id = s.tenant_id
left join zapwatch_gateways g on g.id = z.gateway_id
left join whatsapp_connection_incidents i on i.channel_id = s.channel_id and i.resolved_at is null
left join lateral (
  select id, source, name, trigger, reason, status
  from zapwatch_events
  where channel_id = s.channel_id
  order by id desc
  limit 1
) e on true
where s.channel_id = any ($1::uuid[]);

-- name: find_redelivered
-- Find the webhooks that were stored before, by their key. Looked up one by one, so that no plan can begin with the
-- whole table.
select u.channel_id, u.key, e.id
from unnest($1::uuid[], $2::bytea[]) as u (channel_id, key)
cross join lateral (
  select id from zapwatch_events where channel_id = u.channel_id and key = u.key limit 1
) e;

-- name: count_redeliveries
-- Count webhooks that were stored before: a write, so that even a duplicate waits for a standby
-- (docs/postgresql-facts.md#giving-up).
update zapwatch_events e
set deliveries = e.deliveries + u.times
from (select id, count(*)::int as times from unnest($1::bigint[]) as k (id) group by id) u
where e.id = u.id and e.id = any ($1::bigint[]);

-- name: insert_events
-- Store the events of a batch, in order; a key that is there already (it can't be, under the lock) is counted.
insert into zapwatch_events
  (channel_id, tenant_id, source, name, trigger, reason, status, at, last_at, received_at, last_received_at,
   count, deliveries, key, state, data)
select u.* from unnest($1::zapwatch_new_event[]) as u
on conflict (channel_id, key) where key is not null do update
set deliveries = zapwatch_events.deliveries + excluded.deliveries;

-- name: extend_events
-- Count events that changed nothing on the row of the event that they repeat.
update zapwatch_events e
set
  count = e.count + u.count,
  last_at = greatest(e.last_at, u.last_at),
  last_received_at = greatest(e.last_received_at, u.last_received_at)
from unnest($1::bigint[], $2::int[], $3::timestamptz[], $4::timestamptz[]) as u (id, count, last_at, last_received_at)
where e.id = u.id and e.id = any ($1::bigint[]);

-- name: save_states
-- Save the channels that a batch changed. Bounded by their ids, so that no plan, made when the table was small, begins
-- with all of it.
update zapwatch_states s
set
  version = u.version, state = u.state, reason = u.reason, status = u.status, since = u.since,
  first_unhealthy_at = u.first_unhealthy_at, last_event_at = u.last_event_at, fresh_at = u.fresh_at,
  probed_at = u.probed_at, due_at = u.due_at, probe_due_at = u.probe_due_at, told_rules = u.told_rules,
  memory = u.memory - 'emitted_at', claimed_until = null, emitted_at = (u.memory ->> 'emitted_at')::timestamptz,
  left_at = case when u.memory ? 'left_at' then (
    -- Kept only while it may matter, for it is indexed.
    select left_at
    from (select (u.memory ->> 'left_at')::timestamptz as left_at) d
    where left_at > greatest(u.last_event_at, u.fresh_at, u.probed_at) - interval '10 minutes'
  ) end,
  probe_claimed_until = case when not u.answered then s.probe_claimed_until end
from unnest($1::zapwatch_new_state[]) as u
where s.channel_id = u.channel_id
  and s.channel_id = any (array(select channel_id from unnest($1::zapwatch_new_state[])));

-- name: save_recovery_due
-- Save from when on recovery actions may be ordered for channels, where that changed; apart, because it rarely does.
update zapwatch_states s
set recovery_due_at = u.due_at
from unnest($1::uuid[], $2::timestamptz[]) as u (channel_id, due_at)
where s.channel_id = u.channel_id and s.channel_id = any ($1::uuid[]);

-- name: freshen
-- Note live traffic of channels that it changes in no other way: open, no probe streak, no deadline, no incident, not
-- locked, and without a newer event. The result of step() for an Alive, without the machine.
with plain as (
  select s.channel_id, u.at
  from unnest($1::uuid[], $2::timestamptz[]) as u (channel_id, at)
  join zapwatch_states s on s.channel_id = u.channel_id
  where s.channel_id = any ($1::uuid[])
    and s.state = 'open' and s.due_at is null and (s.last_event_at is null or s.last_event_at <= u.at)
    and not s.memory ?| array['suspicion', 'awaiting_probe_since']
    and not exists (
      select from whatsapp_connection_incidents i where i.channel_id = s.channel_id and i.resolved_at is null
    )
  order by s.channel_id
  for no key update of s skip locked
)
update zapwatch_states s
set last_event_at = p.at, emitted_at = greatest(s.emitted_at, p.at), fresh_at = greatest(s.fresh_at, p.at),
  probe_due_at = case when s.probe_due_at is not null then p.at + $3::interval end
from plain p
where s.channel_id = p.channel_id and s.channel_id = any ($1::uuid[])
returning s.channel_id;

-- name: confirm_open
-- Confirm the channels that a bulk probe found open: those that are open, whose probe is due soon, with no probe streak,
-- no deadline, no incident, no event since the bulk probe began and the same version, that no other session has locked,
-- and that are unclaimed or claimed until $9. The result of step() for such an answer, with its event and
-- `last_health_check`, without the machine and in one statement, for a busy process waits long between two. Bounded by
-- their gateway: with as many ids as here that costs less than by their ids.
with plain as (
  select s.channel_id
  from unnest($1::uuid[], $2::bigint[]) as u (channel_id, version)
  join zapwatch_states s on s.channel_id = u.channel_id
  where s.version = u.version and s.gateway_id = $3
    and s.state = 'open' and s.due_at is null and s.told_rules is not null and s.probe_due_at <= $6
    and (s.probe_claimed_until is null or s.probe_claimed_until <= $4 or s.probe_claimed_until = $9)
    and (s.last_event_at is null or s.last_event_at <= $4) and (s.probed_at is null or s.probed_at < $4)
    and not s.memory ?| array['suspicion', 'awaiting_probe_since']
    and not exists (
      select from whatsapp_connection_incidents i where i.channel_id = s.channel_id and i.resolved_at is null
    )
  order by s.channel_id
  for no key update of s skip locked
), confirmed as (
  update zapwatch_states s
  set fresh_at = greatest(s.fresh_at, $5), probed_at = $4,
    probe_due_at = $5 + $7::interval * (1 + $8::float * random()), probe_claimed_until = null,
    memory = (s.memory - 'details') || jsonb_build_object(
      'has_been_open', true,
      'evidence', coalesce(s.memory -> 'evidence', '{}') - array['witnesses', 'trouble']
        || jsonb_build_object('base', jsonb_build_array(s.state, s.reason, s.status), 'settled_at', $4)
    )
  from plain p
  where s.channel_id = p.channel_id and s.gateway_id = $3
  returning s.channel_id, s.tenant_id
), newest as (
  select c.channel_id, c.tenant_id, e.id
  from confirmed c
  left join lateral (
    select id, source, name, trigger, reason, status
    from zapwatch_events
    where channel_id = c.channel_id
    order by id desc
    limit 1
  ) e on e.source = 'probe' and e.name = 'probe' and e.trigger = 'opened' and e.reason is null and e.status = 200
), counted as (
  update zapwatch_events e
  set count = e.count + 1, last_at = greatest(e.last_at, $4), last_received_at = greatest(e.last_received_at, $5)
  from newest n
  where e.id = n.id
), stored as (
  insert into zapwatch_events
    (channel_id, tenant_id, source, name, trigger, status, at, last_at, received_at, last_received_at, state, data)
  select channel_id, tenant_id, 'probe', 'probe', 'opened', 200, $4, $4, $5, $5, 'open', jsonb_build_object('dated_at', $4)
  from newest
  where id is null
), shown as (
  update notification_channels n
  set last_health_check = $4
  where n.id in (
    select id
    from notification_channels
    where id in (select channel_id from confirmed)
      and (last_health_check is null or last_health_check <= $4 - $10::interval)
    order by id
    for no key update skip locked
  )
)
select channel_id from confirmed;

-- name: show_states
-- Write a change of state for other applications; the reason is cut where another application's column is narrow.
update notification_channels n
set
  connection_status = u.state,
  error_message = left(u.reason, (
    select case when atttypid = 'varchar'::regtype and atttypmod > 4 then atttypmod - 4 else 1000 end
    from pg_attribute where attrelid = 'notification_channels'::regclass and attname = 'error_message')),
  last_connected_at = case when u.state = 'open' then u.at else n.last_connected_at end,
  last_health_check = u.at
from unnest($1::zapwatch_shown_state[]) as u
where n.id = u.channel_id
  and n.id = any (array(select channel_id from unnest($1::zapwatch_shown_state[])));

-- name: show_owners
-- Write the owners of sessions for other applications; what the gateway didn't report stays as it is.
update notification_channels n
set phone_number = coalesce(u.phone, n.phone_number), profile_name = coalesce(u.profile, n.profile_name)
from unnest($1::uuid[], $2::text[], $3::text[]) as u (id, phone, profile)
where n.id = u.id and n.id = any ($1::uuid[]);

-- name: show_probes
-- Write for other applications when channels were probed; locked rows are skipped until the next time.
update notification_channels n
set last_health_check = u.at
from unnest($1::uuid[], $2::timestamptz[]) as u (id, at)
where n.id = u.id
  and n.id in (select id from notification_channels where id = any ($1::uuid[]) order by id for no key update skip locked);

-- name: save_clocks
-- Save gateways' clocks, unless another replica saved its own or has the row locked: they are learnt again.
update zapwatch_gateways g
set clock = u.clock
from unnest($1::uuid[], $2::jsonb[], $3::jsonb[]) as u (id, known, clock)
where g.id = u.id and g.clock = u.known
  and g.id in (select id from zapwatch_gateways where id = any ($1::uuid[]) order by id for no key update skip locked);

-- name: change_incidents
-- Bring open incidents up to date; what another application wrote into the details stays. A cause stays only where it
-- is among the new details.
update whatsapp_connection_incidents i
set
  kind = u.kind, last_state = u.last_state,
  details = (coalesce(i.details, '{}') - array['reason', 'status', 'flapping', 'offline_reasons', 'cause', 'gateway_incident_id']) || u.details
from unnest($1::uuid[], $2::text[], $3::text[], $4::jsonb[]) as u (channel_id, kind, last_state, details)
where i.channel_id = u.channel_id and i.resolved_at is null;

-- name: open_incidents
-- Open incidents; at most one for each channel.
select channel_id
from zapwatch_incidents_open($1::uuid[], $2::text[], $3::text[], $4::jsonb[], $5::timestamptz[], $6::timestamptz[])
where opened;

-- name: resolve_incidents
-- End the open incidents of channels.
select channel_id
from zapwatch_incidents_resolve($1::uuid[], $2::timestamptz[], $3::jsonb[], $4::boolean[]);

-- name: record_incidents
-- Store incidents that opened and ended within one batch.
select channel_id
from zapwatch_incidents_record(
  $1::uuid[], $2::text[], $3::text[], $4::jsonb[], $5::timestamptz[], $6::timestamptz[], $7::timestamptz[]
);

-- name: note_changes
-- Note changes of state, where a destination of the tenant or of operators subscribes to them.
insert into zapwatch_changes (channel_id, tenant_id, event, previous_state, state, reason, since, version)
select u.channel_id, u.tenant_id, 'channel.state_changed', u.previous_state, u.state, u.reason, u.since, u.version
from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::bigint[])
  as u (channel_id, tenant_id, previous_state, state, reason, since, version)
where exists (
  select from zapwatch_destinations
  where tenant_id is null and disabled_at is null and 'channel.state_changed' = any (events)
) or exists (
  select from zapwatch_destinations
  where tenant_id = u.tenant_id and disabled_at is null and 'channel.state_changed' = any (events)
);

-- name: read_events
-- Read a channel's events from this one on, in the order in which they were applied.
select source, name, trigger, reason, status, at, last_at, received_at, last_received_at, count, data
from zapwatch_events
where channel_id = $1 and id >= $2
order by id;

-- name: acknowledge_incident
-- Note that an operator has seen an incident, unless one has already.
update whatsapp_connection_incidents
set acknowledged_at = now()
where id = $1 and acknowledged_at is null;

-- name: note_notified
-- Note that messages about incidents were delivered, and when last.
update whatsapp_connection_incidents
set notified_at = $2, notification_count = coalesce(notification_count, 0) + 1
where id = any ($1::uuid[]);
