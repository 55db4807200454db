-- name: lock_routing
-- Lock routing for one replica at a time; one that freezes meanwhile loses its lock.
select pg_try_advisory_xact_lock(hashtextextended('zapwatch routing', 0))
  and set_config('idle_in_transaction_session_timeout', '10s', true) is not null;

-- name: due_alerts
-- Alerts that are due for a decision, with the status of their incidents and channels; locked for this replica.
select a.id, a.kind = 'resolved' as resolved, a.incident_id, a.gateway_incident_id, a.tenant_id, a.created_at,
  a.due_at > a.created_at as was_held,
  i.resolved_at is not null or gi.resolved_at is not null as is_over,
  n.metadata::text as metadata, t.defaults::text as defaults, z.paused_at is not null as paused,
  coalesce(z.removed or n.deleted_at is not null or not n.is_active, false) as removed,
  zapwatch_quiet_until($1, a.tenant_id, a.channel_id, coalesce(z.gateway_id, gi.gateway_id)) as quiet_until
from zapwatch_alerts a
left join whatsapp_connection_incidents i on i.id = a.incident_id
left join zapwatch_gateway_incidents gi on gi.id = a.gateway_incident_id
left join notification_channels n on n.id = a.channel_id
left join zapwatch_channels z on z.channel_id = a.channel_id
left join tenants t on t.id = a.tenant_id
where a.settled_at is null and a.due_at <= $1
order by a.due_at, a.id
limit $2
for update of a skip locked;

-- name: due_reminders
-- Openings whose reminders are due, with the status of their incidents and channels.
select d.id, d.event, d.incident_id, d.gateway_incident_id, d.tenant_id, d.destination_id, d.reminders,
  m.outcome, coalesce(i.acknowledged_at, gi.acknowledged_at) is not null as acknowledged,
  i.resolved_at is not null or gi.resolved_at is not null as is_over,
  n.metadata::text as metadata, t.defaults::text as defaults, z.paused_at is not null as paused,
  coalesce(z.removed or n.deleted_at is not null or not n.is_active, false) as removed,
  zapwatch_quiet_until($1, d.tenant_id, i.channel_id, coalesce(z.gateway_id, gi.gateway_id)) as quiet_until
from zapwatch_decisions d
join zapwatch_messages m on m.id = d.message_id
left join whatsapp_connection_incidents i on i.id = d.incident_id
left join zapwatch_gateway_incidents gi on gi.id = d.gateway_incident_id
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
-- The openings of these incidents that were sent, by destination, with the outcomes.
select d.id, d.subject_id, d.destination_id, d.message_id, m.outcome
from zapwatch_decisions d
join zapwatch_messages m on m.id = d.message_id
where d.subject_id = any ($1::uuid[]) and d.is_sent and d.alert_id is not null
  and d.event in ('incident.opened', 'gateway.opened');

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
   channel_id, details)
select $1, u.*
from unnest(
  $2::bigint[], $3::uuid[], $4::uuid[], $5::uuid[], $6::uuid[], $7::text[], $8::boolean[], $9::text[], $10::uuid[],
  $11::timestamptz[], $12::uuid[], $13::jsonb[]) as u
on conflict (alert_id, coalesce(destination_id, '00000000-0000-0000-0000-000000000000')) where alert_id is not null
do update set at = excluded.at, is_sent = excluded.is_sent, why = excluded.why, message_id = excluded.message_id,
  remind_at = excluded.remind_at;

-- name: withdraw_openings
-- Withdraw openings from messages that have not been sent: the incidents are over. A message of nothing else is void.
with taken as (
  update zapwatch_decisions d
  set is_sent = false, why = $2, message_id = null, remind_at = null
  from zapwatch_decisions o
  where d.id = any ($1::bigint[]) and o.id = d.id
  returning o.message_id
)
update zapwatch_messages m
set settled_at = $3, outcome = 'void'
where m.id in (select message_id from taken) and m.settled_at is null and not exists (
  select from zapwatch_decisions d where d.message_id = m.id and d.id <> all ($1::bigint[]));

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
set due_at = $1
where id in (
  select a.id
  from zapwatch_alerts a
  left join zapwatch_channels z on z.channel_id = a.channel_id
  left join zapwatch_gateway_incidents gi on gi.id = a.gateway_incident_id
  where a.settled_at is null and a.due_at > $1 and zapwatch_quiet_until($1, a.tenant_id, a.channel_id, coalesce(z.gateway_id, gi.gateway_id)) is null
  for update of a skip locked
);

-- name: prune_messages
-- Forget messages that were settled long ago, with what was decided and tried for them, a few at a time; but none of an
-- incident that is still open, for its end goes to the destinations that got its opening.
delete from zapwatch_messages
where id = any (array(
  select m.id
  from zapwatch_messages m
  where m.settled_at < $1 and not exists (
    select
    from zapwatch_decisions d
    left join whatsapp_connection_incidents i on i.id = d.incident_id
    left join zapwatch_gateway_incidents gi on gi.id = d.gateway_incident_id
    where d.message_id = m.id and d.subject_id is not null and i.resolved_at is null and gi.resolved_at is null
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
