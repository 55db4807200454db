-- name: claim_retention
-- Claim channels whose old events are due to be looked at, each for one replica until the transaction ends; the next
-- time is $2.
update zapwatch_channels
set retention_due_at = $2
where channel_id in (
  select channel_id
  from zapwatch_channels
  where retention_due_at <= $1
  order by retention_due_at
  limit $3
  for no key update skip locked
)
returning channel_id;

-- name: put_retention_forward
-- Have channels looked at again at once: there is more to forget.
update zapwatch_channels set retention_due_at = $2 where channel_id = any ($1::uuid[]);

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
  select s.version, s.state, s.reason, s.status, s.since, s.first_unhealthy_at, s.last_event_at, s.fresh_at,
    s.probed_at, s.due_at, s.probe_due_at, s.memory, i.kind as incident_kind, i.last_state as incident_last_state,
    i.details::text as incident_details, i.started_at as incident_started_at, i.opened_at as incident_opened_at
) c
where s.channel_id = any ($1::uuid[])
  and (last.event_id is null or (last.event_id < e.id and last.taken_at <= $3))
on conflict do nothing;

-- name: drop_snapshots
-- Drop the snapshots of these channels that are older than their newest of before $2: a replay begins with that one.
delete from zapwatch_snapshots s
using (
  select channel_id, max(event_id) as event_id
  from zapwatch_snapshots
  where channel_id = any ($1::uuid[]) and taken_at < $2
  group by channel_id
) begin
where s.channel_id = begin.channel_id and s.event_id < begin.event_id;

-- name: forget_events
-- Forget events of these channels, so many at a time, and none that isn't in each snapshot of its channel; return how
-- many. One that somebody else has waits for the next time.
with forgotten as (
  delete from zapwatch_events
  where id in (
    select e.id
    from (
      select channel_id, min(event_id) as event_id
      from zapwatch_snapshots
      where channel_id = any ($1::uuid[])
      group by channel_id
    ) begin
    cross join lateral (
      select id
      from zapwatch_events
      where channel_id = begin.channel_id and id < begin.event_id
      limit $2
      for update skip locked
    ) e
    limit $2
  )
  returning 1
)
select count(*) from forgotten;

-- name: read_snapshot
-- Read the snapshot that a replay of a channel begins with.
select event_id, channel from zapwatch_snapshots where channel_id = $1 order by event_id limit 1;
