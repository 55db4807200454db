-- name: lock_routing
-- Lock routing for one replica at a time; one that freezes meanwhile loses its lock.
select pg_try_advisory_xact_lock(hashtextextended('zapwatch routing', 0))
  and set_config('idle_in_transaction_session_timeout', '10s', true) is not null;

-- name: merge_changes
-- Of each incident with a change that is due leave the newest change alone to be decided, and keep with it the cause that
-- the incident lost by one before. Its opening is due, too, if that is held: what it waits for may be known now.
with newest as (
  select incident_id, max(id) as id
  from zapwatch_alerts
  where settled_at is null and due_at <= $1 and kind = 'changed'
  group by incident_id
), older as (
  update zapwatch_alerts a
  set settled_at = $1
  from newest n
  where a.incident_id = n.incident_id and a.kind = 'changed' and a.id < n.id and a.settled_at is null
  returning a.id, a.incident_id, a.was_caused_by
), opening as (
  update zapwatch_alerts a
  set due_at = $1
  from newest n
  where a.incident_id = n.incident_id and a.kind = 'opened' and a.due_at > $1 and a.settled_at is null
)
update zapwatch_alerts a
set was_caused_by = o.was_caused_by
from newest n
join (
  select distinct on (incident_id) incident_id, was_caused_by
  from older
  where was_caused_by is not null
  order by incident_id, id desc
) o using (incident_id)
where a.id = n.id and a.was_caused_by is null;

-- name: lock_due_alerts
-- Lock alerts that are due for a decision, for this replica.
select id
from zapwatch_alerts
where settled_at is null and due_at <= $1
order by due_at, id
limit $2
for update skip locked;

-- name: lock_pending_openings
-- Lock the openings of these gateways' incidents that are not due yet, for this replica.
select id
from zapwatch_alerts
where gateway_incident_id = any ($2::uuid[]) and kind = 'opened' and settled_at is null and due_at > $1
for update skip locked;

-- name: read_alerts
-- These alerts with the status of their incidents and channels, the gateway's incident that they are about or caused by,
-- whether their gateway is in doubt, and to which destinations held ones were sent already.
select a.id, a.kind, a.incident_id, a.gateway_incident_id, a.tenant_id, a.created_at,
  a.due_at > a.created_at as was_held, a.due_at <= $1 as is_due,
  case when a.incident_id is null then gi.resolved_at else i.resolved_at end is not null as is_over,
  n.metadata::text as metadata, t.defaults::text as defaults, z.paused_at is not null as paused,
  coalesce(z.removed or n.deleted_at is not null or not n.is_active, false) as removed,
  zapwatch_quiet_until($1, a.tenant_id, a.channel_id, coalesce(z.gateway_id, gi.gateway_id)) as quiet_until,
  gi.id as cause_id, gi.cause, gi.resolved_at is not null as cause_is_over,
  coalesce(gi.details ->> 'perhaps_offline' = 'true', false) as perhaps_offline,
  -- Where nothing is probed there is no trial to wait for.
  gi.resolved_at is null and greatest(gi.opened_at, g.tried_at, g.failed_at) < $1::timestamptz - $2::interval and (
    gi.cause in ('unreachable', 'unavailable')
    or exists (select from zapwatch_states p where p.gateway_id = g.id and p.probe_due_at is not null)
  ) as cause_is_untried,
  coalesce(i.details ->> 'cause' = 'gateway', false) as has_cause, a.was_caused_by is not null as was_caused,
  coalesce(s.state = 'disconnected/unpaired' or s.reason = 'scan_needed' or i.details ->> 'reason' = 'scan_needed', false) as is_terminal,
  coalesce(z.put_by = 'tenant' and z.api_key is not null, false) as has_own_key,
  -- The round that ends settling takes away the causes that are left; what it finds is told together with the rest.
  case when g.settles_until > $1::timestamptz - interval '1 second' then g.settles_until end as settles_until,
  a.kind = 'opened' and a.incident_id is not null and (
    (g.failing_since is not null and exists (
      select from zapwatch_channels c
      where c.channel_id = any (g.failed) and c.channel_id <> a.channel_id
        and (c.put_by is distinct from 'tenant' or c.tenant_id = a.tenant_id)
    ))
    or 2 <= (
      select count(*)
      from (
        select
        from zapwatch_states o
        join zapwatch_channels c using (channel_id)
        where o.gateway_id = z.gateway_id and o.left_at > $1::timestamptz - interval '60 seconds'
          and o.channel_id <> a.channel_id and o.state <> 'open'
          and (c.put_by is distinct from 'tenant' or c.tenant_id = a.tenant_id)
        limit 2
      ) o
    )
  ) as is_gateway_in_doubt,
  case when a.due_at > a.created_at then array(
    select d.destination_id from zapwatch_decisions d where d.alert_id = a.id and d.is_sent
  ) else '{}' end as sent_to
from zapwatch_alerts a
left join whatsapp_connection_incidents i on i.id = a.incident_id
left join zapwatch_gateway_incidents gi on gi.id = coalesce(a.gateway_incident_id, (
  select id::uuid
  from (values (coalesce(i.details ->> 'gateway_incident_id', a.was_caused_by))) as v (id)
  where id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
))
left join notification_channels n on n.id = a.channel_id
left join zapwatch_channels z on z.channel_id = a.channel_id
left join zapwatch_states s on s.channel_id = a.channel_id
left join zapwatch_gateways g on g.id = coalesce(gi.gateway_id, z.gateway_id)
left join tenants t on t.id = a.tenant_id
where a.id = any ($3::bigint[])
order by a.id;

-- name: due_reminders
-- Openings whose reminders are due, with the status of their incidents and channels.
select d.id, d.event, d.incident_id, d.gateway_incident_id, d.tenant_id, d.destination_id, d.reminders,
  m.outcome, case
    -- An operator acknowledges a gateway's incident for all that it causes, a tenant each of its own.
    when d.incident_id is null and d.tenant_id is not null then not exists (
      select from whatsapp_connection_incidents c
      where c.details ->> 'gateway_incident_id' = d.gateway_incident_id::text and c.tenant_id = d.tenant_id
        and c.resolved_at is null and c.acknowledged_at is null
    )
    else coalesce(i.acknowledged_at, gi.acknowledged_at) is not null or (o.tenant_id is null and exists (
      select from zapwatch_gateway_incidents c
      where c.id::text = i.details ->> 'gateway_incident_id' and c.acknowledged_at is not null
    ))
  end as acknowledged,
  i.resolved_at is not null or gi.resolved_at is not null as is_over,
  n.metadata::text as metadata, t.defaults::text as defaults, z.paused_at is not null as paused,
  coalesce(z.removed or n.deleted_at is not null or not n.is_active, false) as removed,
  zapwatch_quiet_until($1, d.tenant_id, i.channel_id, coalesce(z.gateway_id, gi.gateway_id)) as quiet_until
from zapwatch_decisions d
join zapwatch_messages m on m.id = d.message_id
join zapwatch_destinations o on o.id = d.destination_id
left join whatsapp_connection_incidents i on i.id = d.incident_id
left join zapwatch_gateway_incidents gi on gi.id = d.gateway_incident_id and d.incident_id is null
left join notification_channels n on n.id = i.channel_id
left join zapwatch_channels z on z.channel_id = i.channel_id
left join tenants t on t.id = d.tenant_id
where d.remind_at <= $1
order by d.remind_at
limit $2
for update of d skip locked;

-- name: read_destinations
-- The destinations of these tenants, and the operators' own.
select id, tenant_id, kind, config, events, reminder_minutes, disabled_at is not null as disabled
from zapwatch_destinations
where tenant_id is null or tenant_id = any ($1::uuid[]);

-- name: add_in_app_destinations
-- Add the `in_app` destinations that tenants lack.
insert into zapwatch_destinations (id, tenant_id, kind, config)
select u.id, u.tenant_id, 'in_app', u.config
from unnest($1::uuid[], $2::uuid[], $3::bytea[]) as u (id, tenant_id, config)
join tenants t on t.id = u.tenant_id
on conflict do nothing;

-- name: tenants_with_members
-- Those of these tenants that have active members, and whether one of these is an administrator.
select tenant_id, bool_or(role::text in ('clinic_admin', 'tenant_admin')) as admins
from tenant_members
where tenant_id = any ($1::uuid[]) and status::text = 'active'
group by tenant_id;

-- name: lock_waiting_messages
-- Messages of these destinations that may still take further alerts; locked, so that they are not sent meanwhile.
select id, destination_id, purpose
from zapwatch_messages
where destination_id = any ($1::uuid[]) and settled_at is null and due_at > $2 and tries = 0 and purpose <> 'test'
order by id
for no key update;

-- name: read_newest_due
-- When the newest messages of these destinations were first due, where that was after $2.
select destination_id, purpose, max(leaves_at) as leaves_at
from zapwatch_messages
where destination_id = any ($1::uuid[]) and leaves_at > $2
group by destination_id, purpose;

-- name: read_openings
-- The openings of these incidents that were sent, by destination, with the outcomes: of a channel's incident, of a
-- gateway's, or of all of a tenant's incidents that one of these gateways' incidents caused. Of a channel that was named as
-- not back when its gateway was, that message is the opening.
select d.id, d.subject_id, d.destination_id, d.message_id, m.outcome, m.facts is not null as was_tried
from zapwatch_decisions d
join zapwatch_messages m on m.id = d.message_id and m.purpose = 'news'
where d.subject_id = any ($1::uuid[]) and d.event in ('incident.opened', 'gateway.opened')
  and (d.is_sent or (d.why = 'caused_by_gateway' and d.details ->> 'still_down' = 'true'))
order by d.id;

-- name: read_offline_openings
-- For each destination that was told of a gateway that may not be reached because of our own line, the newest of these
-- openings: of an incident that is open, or was after $1.
select distinct on (d.destination_id) d.destination_id, d.gateway_incident_id, d.message_id
from zapwatch_gateway_incidents i
join zapwatch_decisions d on d.gateway_incident_id = i.id and d.incident_id is null and d.is_sent and d.event = 'gateway.opened'
join zapwatch_messages m on m.id = d.message_id and (m.outcome is null or m.outcome = 'delivered')
where i.details ->> 'perhaps_offline' = 'true' and (i.resolved_at is null or i.resolved_at > $1)
order by d.destination_id, d.id desc;

-- name: due_group_ends
-- Messages that stand for all of a tenant's incidents with one cause, whose end is due: the gateway's incident is over, and
-- its channels are back or have had $2 for it, those apart that were never connected. Not while maintenance keeps them quiet.
select d.id, d.gateway_incident_id, d.tenant_id, d.destination_id, d.message_id, m.outcome
from zapwatch_decisions d
join zapwatch_messages m on m.id = d.message_id
join zapwatch_gateway_incidents i on i.id = d.gateway_incident_id
where d.end_awaited and i.resolved_at is not null
  and (
    i.cause = 'mass_loss' or i.resolved_at <= $1::timestamptz - $2::interval or not exists (
      select
      from zapwatch_affected_channels a
      join zapwatch_states s using (channel_id)
      join zapwatch_channels z using (channel_id)
      where a.gateway_incident_id = i.id and a.tenant_id = d.tenant_id and s.first_unhealthy_at is not null
        and s.memory @> '{"has_been_open": true}' and not z.removed and z.paused_at is null
    )
  )
  and zapwatch_quiet_until($1, d.tenant_id, null, i.gateway_id) is null
order by d.id
limit $3
for update of d skip locked;

-- name: end_groups
-- Note that the ends of these messages are decided.
update zapwatch_decisions set end_awaited = false where id = any ($1::bigint[]);

-- name: link_caused
-- Link the decisions about incidents that these gateways' incidents caused to the messages that stand for them.
update zapwatch_decisions d
set message_id = u.message_id
from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::boolean[])
  as u (gateway_incident_id, destination_id, message_id, is_end)
where d.gateway_incident_id = u.gateway_incident_id and d.destination_id = u.destination_id
  and d.incident_id is not null and d.why = 'caused_by_gateway' and d.message_id is null
  and (u.is_end or d.event = 'incident.opened');

-- name: link_named
-- Link the decisions about these alerts of channels that are named as not back to the messages that name them, where the
-- gateway's end was decided before.
update zapwatch_decisions d
set message_id = e.message_id
from zapwatch_decisions e
where d.alert_id = any ($1::bigint[]) and d.why = 'caused_by_gateway' and d.message_id is null
  and e.subject_id = d.gateway_incident_id and e.destination_id = d.destination_id and e.event = 'incident.resolved' and e.is_sent;

-- name: add_messages
-- Write messages to send.
insert into zapwatch_messages (id, destination_id, tenant_id, purpose, due_at, leaves_at)
select u.id, u.destination_id, u.tenant_id, u.purpose, u.due_at, u.due_at
from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::timestamptz[])
  as u (id, destination_id, tenant_id, purpose, due_at);

-- name: add_decisions
-- Write decisions; a new decision about an alert replaces the one that held it.
insert into zapwatch_decisions as d
  (at, alert_id, incident_id, gateway_incident_id, tenant_id, destination_id, event, is_sent, why, message_id, remind_at,
   channel_id, details, end_awaited)
select $1, u.*
from unnest(
  $2::bigint[], $3::uuid[], $4::uuid[], $5::uuid[], $6::uuid[], $7::text[], $8::boolean[], $9::text[], $10::uuid[],
  $11::timestamptz[], $12::uuid[], $13::jsonb[], $14::boolean[]) as u
on conflict (alert_id, coalesce(destination_id, '00000000-0000-0000-0000-000000000000')) where alert_id is not null
do update set at = excluded.at, is_sent = excluded.is_sent, why = excluded.why, message_id = excluded.message_id,
  remind_at = excluded.remind_at, gateway_incident_id = excluded.gateway_incident_id, details = excluded.details;

-- name: withdraw_openings
-- Withdraw openings from messages that have not been sent. A message of nothing else is void.
with taken as (
  update zapwatch_decisions d
  set is_sent = false, why = u.why, message_id = null, remind_at = null, end_awaited = false
  from unnest($1::bigint[], $2::text[]) as u (id, why)
  join zapwatch_decisions o using (id)
  where d.id = u.id
  returning o.message_id
)
update zapwatch_messages m
set settled_at = $3, outcome = 'void'
where m.id in (select message_id from taken) and m.settled_at is null and not exists (
  select from zapwatch_decisions d where d.message_id = m.id and d.is_sent and d.id <> all ($1::bigint[]));

-- name: settle_alerts
-- Settle alerts whose decision is final.
update zapwatch_alerts set settled_at = $2, claimed_until = null where id = any ($1::bigint[]);

-- name: put_off_alerts
-- Put off the decisions about alerts.
update zapwatch_alerts a
set due_at = u.due_at
from unnest($1::bigint[], $2::timestamptz[]) as u (id, due_at)
where a.id = u.id and a.settled_at is null;

-- name: put_off_reminders
-- Set when the next reminders are due, if ever, and how many were sent.
update zapwatch_decisions d
set remind_at = u.remind_at, reminders = u.reminders
from unnest($1::bigint[], $2::timestamptz[], $3::int[]) as u (id, remind_at, reminders)
where d.id = u.id;

-- name: release_held_alerts
-- Make alerts due now that were held by a maintenance window that has ended early.
update zapwatch_alerts
set due_at = greatest($1, not_before)
where id in (
  select a.id
  from zapwatch_alerts a
  left join zapwatch_channels z on z.channel_id = a.channel_id
  left join zapwatch_gateway_incidents gi on gi.id = a.gateway_incident_id
  where a.settled_at is null and a.due_at > greatest($1, a.not_before) and zapwatch_quiet_until($1, a.tenant_id, a.channel_id, coalesce(z.gateway_id, gi.gateway_id)) is null
  for update of a skip locked
);

-- name: prune_messages
-- Forget messages that were settled long ago, with what was decided and tried for them, a few at a time; but none of the
-- opening of an incident that is still open, for its end goes to the destinations that got that.
delete from zapwatch_messages
where id = any (array(
  select m.id
  from zapwatch_messages m
  where m.settled_at < $1 and not exists (
    select
    from zapwatch_decisions d
    left join whatsapp_connection_incidents i on i.id = d.incident_id
    left join zapwatch_gateway_incidents gi on gi.id = d.gateway_incident_id and d.incident_id is null
    where d.message_id = m.id and d.event in ('incident.opened', 'gateway.opened')
      and coalesce(i.resolved_at, gi.resolved_at) is null
  )
  limit 1000
  for update skip locked
));

-- name: prune_decisions
-- Forget old decisions by which nothing was sent, a few at a time.
delete from zapwatch_decisions
where id = any (array(
  select id from zapwatch_decisions where at < $1 and message_id is null order by at limit 1000 for update skip locked
));

-- name: prune_changes
-- Forget changes of incidents that were decided before $1, a few at a time; the decisions stay. An incident that goes to and
-- fro has very many.
with old as (
  select id from zapwatch_alerts
  where kind = 'changed' and settled_at < $1
  order by settled_at
  limit 1000
  for update skip locked
), decided as (
  update zapwatch_decisions set alert_id = null where alert_id in (select id from old)
)
delete from zapwatch_alerts where id in (select id from old);
