-- name: claim_snapshots
-- Claim channels that are due for retention, each for one replica until the transaction ends; the next time is $2.
update zapwatch_channels
set retention_due_at = $2
where channel_id = any (array(
  select channel_id
  from zapwatch_channels
  where retention_due_at <= $1
  order by retention_due_at
  limit $3
  for no key update skip locked
))
returning channel_id;

-- name: take_snapshots
-- Keep these channels as they are after their newest event, unless it is in a snapshot or the last was taken after $3.
-- The first is of a channel before its first event. One statement, so that state, incident and event are of one moment.
insert into zapwatch_snapshots (channel_id, event_id, tenant_id, taken_at, channel)
select s.channel_id, case when last.event_id is null then 0 else e.id end, s.tenant_id, $2,
  case when last.event_id is not null then to_jsonb(c) end
from zapwatch_states s
left join whatsapp_connection_incidents i on i.channel_id = s.channel_id and i.resolved_at is null
left join lateral (
  select id from zapwatch_events where channel_id = s.channel_id order by id desc limit 1
) e on true
left join lateral (
  select event_id, taken_at from zapwatch_snapshots where channel_id = s.channel_id order by event_id desc limit 1
) last on true
cross join lateral (
  select s.version, s.state, s.reason, s.status, s.since, s.first_unhealthy_at, s.last_event_at,
    s.emitted_at, s.fresh_at, s.probed_at, s.due_at, s.probe_due_at, s.told_rules, s.memory, i.kind as incident_kind,
    i.last_state as incident_last_state,
    i.details::text as incident_details, i.started_at as incident_started_at, i.opened_at as incident_opened_at
) c
where s.channel_id = any ($1::uuid[])
  and (last.event_id is null or (last.event_id < e.id and last.taken_at <= $3))
on conflict do nothing;

-- name: drop_snapshots
-- Drop the snapshots of these channels that are older than their newest before $2, with which a replay begins.
delete from zapwatch_snapshots s
using (
  select channel_id, max(event_id) as event_id
  from zapwatch_snapshots
  where channel_id = any ($1::uuid[]) and taken_at < $2
  group by channel_id
) begin
where s.channel_id = begin.channel_id and s.event_id < begin.event_id;

-- name: forget_events
-- Delete the old events of one page, in the order in which they are stored, but none that isn't in each snapshot of its
-- channel; locked ones wait for the next time. Return where the next page begins; null when this one reaches events that
-- are young.
with page as (
  select id, channel_id, received_at < $2 as old
  from zapwatch_events
  where id > $1
  order by id
  limit $3
), forgotten as (
  delete from zapwatch_events
  where id in (
    select e.id
    from page
    join zapwatch_events e on e.id = page.id
    where page.old and page.id < (
      select event_id from zapwatch_snapshots where channel_id = page.channel_id order by event_id limit 1
    )
    for update of e skip locked
  )
  returning 1
)
select (select count(*) from forgotten) as events,
  case when count(*) = $3 and bool_and(old) then max(id) end as last
from page;

-- name: read_snapshot
-- Read the snapshot that a replay of a channel begins with.
select event_id, channel from zapwatch_snapshots where channel_id = $1 order by event_id limit 1;
