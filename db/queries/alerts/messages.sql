-- name: claim_messages
-- Claim messages that are due, each for one replica until the lease ends, and count the try: of each destination the
-- longest due, no more than its concurrency slots, and one if the last try failed. Claimed ones keep their slots. The
-- message of an incident's end is put off while that of its opening is not settled, until that was tried once more; so is
-- that of a channel's change while the one before is not.
with recursive waiting as (
  (select destination_id from zapwatch_messages where settled_at is null order by destination_id limit 1)
  union all
  select (
    select m.destination_id from zapwatch_messages m
    where m.settled_at is null and m.destination_id > w.destination_id
    order by m.destination_id limit 1
  )
  from waiting w
  where w.destination_id is not null
), due as (
  select l.id
  from waiting w
  join zapwatch_destinations d on d.id = w.destination_id and d.disabled_at is null
  cross join lateral (
    select m.id, m.due_at, m.claimed_until, row_number() over (order by m.due_at, m.id) as slot
    from zapwatch_messages m
    where m.destination_id = d.id and m.settled_at is null and m.due_at <= $1
    order by m.due_at, m.id
    limit case when d.failing_since is null then $3::int else 1 end
  ) l
  where l.claimed_until is null or l.claimed_until <= $1
  order by l.slot, l.due_at
  limit $4
), mine as (
  select m.id, (
    select max(o.due_at)
    from zapwatch_decisions d
    cross join lateral (
      select e.message_id
      from zapwatch_decisions e
      where e.subject_id = d.subject_id and e.destination_id = d.destination_id and e.id < d.id
      union all
      (
        select e.message_id
        from zapwatch_decisions e
        where e.channel_id = d.channel_id and e.destination_id = d.destination_id and e.event = d.event and e.is_sent
          and e.id < d.id
        order by e.id desc
        limit 5
      )
    ) e
    join zapwatch_messages o on o.id = e.message_id and o.settled_at is null and o.id <> m.id
    where d.message_id = m.id and d.is_sent
  ) as after_at
  from zapwatch_messages m
  join due using (id)
  where m.settled_at is null and (m.claimed_until is null or m.claimed_until <= $1)
  for no key update of m skip locked
), claimed as (
  update zapwatch_messages m
  set claimed_until = case when mine.after_at is null then $2::timestamptz end,
    tries = m.tries + (mine.after_at is null)::int,
    due_at = case when mine.after_at is null then m.due_at else greatest(mine.after_at, $1) + $5::interval end
  from mine
  where m.id = mine.id
  returning m.id, m.destination_id, m.tenant_id, m.purpose, m.created_at, m.tries, m.claimed_until,
    m.facts::text as facts
)
select c.id, c.destination_id, c.tenant_id, c.purpose, c.created_at, c.tries, d.kind, d.config,
  t.locale::text as locale, t.time_zone::text as time_zone, c.facts
from claimed c
join zapwatch_destinations d on d.id = c.destination_id
left join tenants t on t.id = c.tenant_id
where c.claimed_until is not null;

-- name: read_message_items
-- The items of messages, in the order of their decisions. Channels that were never connected aren't affected by a gateway.
select d.id as decision_id, d.message_id, d.event, coalesce(d.subject_id, d.about_destination_id) as subject_id,
  coalesce(i.kind::text, gi.cause, o.disabled_why, '') as kind, coalesce(i.details::text, d.details::text) as details,
  coalesce(i.started_at, gi.started_at, (d.details ->> 'since')::timestamptz, o.failing_since, o.disabled_at) as started_at,
  coalesce(i.resolved_at, gi.resolved_at) as resolved_at,
  n.id as channel_id, d.tenant_id,
  gi.affected - (
    select count(*)
    from zapwatch_affected_channels a
    join zapwatch_states s using (channel_id)
    where a.gateway_incident_id = gi.id and not s.memory @> '{"has_been_open": true}'
  ) as affected,
  coalesce(n.provider::text, g.provider) as provider,
  coalesce(z.name, z.instance, g.name, g.base_url, o.name, o.kind, n.id::text, '') as name, s.state,
  d.details ->> 'state' as changed_to, d.details ->> 'previous_state' as changed_from,
  (d.details ->> 'sequence')::bigint as sequence, (d.details ->> 'expires_at')::timestamptz as expires_at,
  coalesce(d.details ->> 'still_down' = 'true', false) as still_down,
  case when d.incident_id is null then gi.details::text end as gateway_details,
  i.id is not null and coalesce(i.details ->> 'reason' = 'flapping', false) as flapping
from zapwatch_decisions d
left join whatsapp_connection_incidents i on i.id = d.incident_id
left join notification_channels n on n.id = coalesce(i.channel_id, d.channel_id)
left join zapwatch_channels z on z.channel_id = n.id
left join zapwatch_states s on s.channel_id = n.id
left join zapwatch_gateway_incidents gi on gi.id = d.gateway_incident_id and d.incident_id is null
left join zapwatch_gateways g on g.id = gi.gateway_id
left join zapwatch_destinations o on o.id = d.about_destination_id
where d.message_id = any ($1::uuid[]) and d.is_sent
order by d.id;

-- name: read_groups
-- Of decisions about gateways' incidents: what became of the channels that these affect, all or (for a tenant's people) the
-- tenant's. Paused channels and those of which nobody is to be told don't count, nor those that were down before, or were
-- never connected.
with wanted as (
  select d.id, d.tenant_id, i.id as incident_id, i.gateway_id, i.cause, i.started_at, i.opened_at,
    d.event in ('incident.resolved', 'gateway.resolved') as is_end
  from zapwatch_decisions d
  join zapwatch_gateway_incidents i on i.id = d.gateway_incident_id
  where d.id = any ($1::bigint[]) and d.incident_id is null
), channel as (
  select w.id, z.channel_id, z.tenant_id, coalesce(z.name, z.instance, z.channel_id::text) as name, s.state, s.reason,
    o.id as incident_id, s.state = 'open' and s.since >= w.started_at as is_back,
    s.first_unhealthy_at is not null and coalesce(o.opened_at >= w.opened_at - interval '1 minute', true) and (
      w.is_end
      or (o.id is not null and o.details ->> 'gateway_incident_id' = w.incident_id::text)
      or (o.id is null and s.state not in ('open', 'disconnected/unpaired') and s.reason is distinct from 'scan_needed'
        and (w.cause = 'mass_loss' or s.state = 'error'))
    ) as is_down
  from wanted w
  join zapwatch_affected_channels a on a.gateway_incident_id = w.incident_id
    and (w.tenant_id is null or a.tenant_id = w.tenant_id)
  join zapwatch_channels z on z.channel_id = a.channel_id and not z.removed and z.paused_at is null
  join notification_channels n on n.id = z.channel_id
  join zapwatch_states s on s.channel_id = z.channel_id and s.memory @> '{"has_been_open": true}'
  left join tenants t on t.id = z.tenant_id
  left join whatsapp_connection_incidents o on o.channel_id = z.channel_id and o.resolved_at is null
  where zapwatch_alerts_enabled(n.metadata::jsonb, t.defaults::jsonb)
    and zapwatch_quiet_until($2, z.tenant_id, z.channel_id, z.gateway_id) is null
)
select w.id as decision_id, w.started_at, w.is_end, (
    select count(*)
    from zapwatch_channels z
    join zapwatch_states s using (channel_id)
    where (z.tenant_id = w.tenant_id or (w.tenant_id is null and z.gateway_id = w.gateway_id))
      and not z.removed and z.paused_at is null and s.memory @> '{"has_been_open": true}'
  ) as total,
  count(distinct c.tenant_id) as tenants,
  count(*) filter (where c.is_down) as down, count(*) filter (where c.is_back) as back,
  (
    select max(i.resolved_at) from whatsapp_connection_incidents i
    where i.details ->> 'gateway_incident_id' = w.incident_id::text and i.tenant_id = w.tenant_id
  ) as ended_at,
  (
    select count(distinct i.gateway_id) from zapwatch_gateway_incidents i
    where i.resolved_at is null and i.details ->> 'perhaps_offline' = 'true'
  ) as gateways,
  array(
    select jsonb_build_object(
      'name', d.name, 'channel_id', d.channel_id, 'incident_id', d.incident_id, 'state', d.state, 'reason', d.reason)::text
    from channel d
    where d.id = w.id and d.is_down
    order by d.state = 'disconnected/unpaired' desc, d.name, d.channel_id
    limit $3
  ) as channels,
  count(*) filter (where c.is_down and (c.state = 'disconnected/unpaired' or c.reason = 'scan_needed')) as need_scan
from wanted w
left join channel c on c.id = w.id
group by w.id, w.tenant_id, w.incident_id, w.gateway_id, w.started_at, w.is_end;

-- name: keep_facts
-- Keep the facts of messages, from their first try on.
update zapwatch_messages m
set facts = u.facts::jsonb
from unnest($1::uuid[], $2::text[]) as u (id, facts)
where m.id = u.id;

-- name: void_empty
-- Settle messages without items as void.
update zapwatch_messages set settled_at = $2, outcome = 'void', claimed_until = null
where id = any ($1::uuid[]) and settled_at is null;

-- name: release_messages
-- Give claimed messages back, each unless the claim is over.
with mine as (
  select m.id
  from zapwatch_messages m
  join unnest($1::uuid[], $2::timestamptz[]) as claim (id, until) using (id)
  where m.claimed_until = claim.until and m.settled_at is null
  for no key update of m skip locked
)
update zapwatch_messages m set claimed_until = null from mine where m.id = mine.id;

-- name: note_reached
-- Note that a destination can be reached.
update zapwatch_destinations set failing_since = null where id = $1 and failing_since is not null;

-- name: note_unreached
-- Note that a destination was not reached, and return since when it fails.
update zapwatch_destinations set failing_since = coalesce(failing_since, $2)
where id = $1
returning failing_since;

-- name: add_attempt
-- Write one try, unless the message is gone.
insert into zapwatch_attempts (message_id, destination_id, tenant_id, at, took_ms, is_ok, status, answer)
select id, destination_id, tenant_id, $2, $3, $4, $5, $6 from zapwatch_messages where id = $1;

-- name: settle_message
-- Settle a message, unless it is settled already; a delivered one also when another replica has claimed it meanwhile.
update zapwatch_messages
set settled_at = $2, outcome = $3, claimed_until = null
where id = $1 and settled_at is null and ($3 = 'delivered' or claimed_until = $4)
returning id;

-- name: put_off_message
-- Set when a message is tried again, unless another replica has claimed it.
update zapwatch_messages
set due_at = $2, claimed_until = null
where id = $1 and settled_at is null and claimed_until = $3;

-- name: message_openings
-- The incidents of channels whose opening a message reports, each by itself or with others of the same cause.
select distinct incident_id
from zapwatch_decisions
where message_id = $1 and (is_sent or why = 'caused_by_gateway') and incident_id is not null and event = 'incident.opened'
order by incident_id;

-- name: note_gateway_notified
-- Note that a message about the openings of gateways' incidents was delivered.
update zapwatch_gateway_incidents
set notified_at = $2, notification_count = notification_count + 1
where id in (
  select gateway_incident_id from zapwatch_decisions
  where message_id = $1 and (is_sent or why = 'perhaps_offline') and incident_id is null and event = 'gateway.opened'
);

-- name: disable_destination
-- Disable a destination, unless it is already.
update zapwatch_destinations set disabled_at = $2, disabled_why = $3, updated_at = $2
where id = $1 and disabled_at is null
returning tenant_id;

-- name: void_messages
-- Settle the waiting messages of a disabled destination as void, and change their decisions.
with void as (
  update zapwatch_messages
  set settled_at = $2, outcome = 'void', claimed_until = null
  where destination_id = $1 and settled_at is null
  returning id
)
update zapwatch_decisions set is_sent = false, why = 'disabled', remind_at = null
where message_id in (select id from void);

-- name: add_disabled_messages
-- Add messages about a disabled destination to its owner's other destinations, or to operators where none of these has a
-- reader.
with reaching as (
  select d.id, d.tenant_id
  from zapwatch_destinations d
  where d.disabled_at is null and d.id <> $1 and (
    d.kind <> 'in_app'
    or exists (select from tenant_members m where m.tenant_id = d.tenant_id and m.status::text = 'active'))
), own as (
  select * from reaching where tenant_id is not distinct from $2::uuid
), others as (
  select * from own
  union all
  select * from reaching where tenant_id is null and not exists (select from own)
), message as (
  insert into zapwatch_messages (destination_id, tenant_id, due_at, leaves_at)
  select id, tenant_id, $3, $3 from others
  returning id, destination_id
)
insert into zapwatch_decisions (at, tenant_id, destination_id, event, is_sent, why, message_id, about_destination_id)
select $3, $2, destination_id, 'destination.disabled', true, 'destination_disabled', id, $1
from message;

-- name: find_members
-- The active members of a tenant: its administrators, or all of them.
select distinct user_id
from tenant_members
where tenant_id = $1 and status::text = 'active' and ($2 or role::text in ('clinic_admin', 'tenant_admin'))
order by user_id;

-- name: add_notifications
-- Write notifications to members, each once for an id.
insert into notifications (id, owner_id, tenant_id, type, ref_id, payload)
select u.id, u.owner_id, $3, $4, $5, $6::jsonb
from unnest($1::uuid[], $2::uuid[]) as u (id, owner_id)
on conflict do nothing;
