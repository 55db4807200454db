-- name: sweep_verdicts
-- Have the verdict given to channels of gateways that are down which are still open, connecting or unknown, or in error by
-- their own unanswered probes, and neither emitted anything nor were answered for since the silence began, or for $2:
-- registered, resumed or configured meanwhile, or heard of since. A gateway that is being evaluated, or swept, has its turn
-- the next time, so that no two sessions write its rows in different orders.
with silent as (
  select i.id, g.id as gateway_id, g.failing_since
  from zapwatch_gateways g
  join zapwatch_gateway_incidents i on i.gateway_id = g.id and i.resolved_at is null
  where g.state = 'down'
), missed as materialized (
  select i.id, i.gateway_id, s.channel_id, s.tenant_id
  from silent i
  join zapwatch_states s on s.gateway_id = i.gateway_id
  join zapwatch_channels c on c.channel_id = s.channel_id
  where s.probe_due_at is not null and c.paused_at is null and not c.removed
    and (s.state in ('open', 'connecting', 'unknown')
      or s.state = 'error' and s.reason in ('unreachable', 'not_loaded', 'provider_unavailable'))
    and (s.emitted_at is null or s.emitted_at <= greatest(i.failing_since, $1::timestamptz - $2::interval))
    and coalesce((s.memory #>> '{evidence,settled_at}')::timestamptz, '-infinity')
      <= greatest(i.failing_since, $1::timestamptz - $2::interval)
    and not exists (
      select from zapwatch_affected_channels a
      where a.gateway_incident_id = i.id and a.channel_id = s.channel_id and a.verdict_due_at is not null
    )
), locked as materialized (
  select id from zapwatch_gateways
  where id in (select gateway_id from missed) and state = 'down'
  for no key update skip locked
), due as (
  insert into zapwatch_affected_channels as a (gateway_incident_id, channel_id, tenant_id, verdict_due_at)
  select m.id, m.channel_id, m.tenant_id, $1
  from missed m
  join locked l on l.id = m.gateway_id
  on conflict (gateway_incident_id, channel_id) do update
  set verdict_due_at = excluded.verdict_due_at
  where a.verdict_due_at is null
  returning gateway_incident_id, xmax = 0 as attached
)
update zapwatch_gateway_incidents i
set affected = affected + n.channels
from (select gateway_incident_id, count(*) as channels from due where attached group by 1) n
where i.id = n.gateway_incident_id;

-- name: note_webhooks
-- Say of silent gateways' incidents that webhooks arrive, where a channel emitted something since.
update zapwatch_gateway_incidents i
set details = i.details || '{"webhooks_arrive": true}'
from zapwatch_gateways g
where g.state = 'down' and i.gateway_id = g.id and i.resolved_at is null and not i.details ? 'webhooks_arrive'
  and exists (select from zapwatch_states s where s.gateway_id = g.id and s.emitted_at > g.failing_since);

-- name: silent_incidents
-- The open incidents of gateways that are down, and began lately: their channels' may have opened beside them.
select i.id
from zapwatch_gateways g
join zapwatch_gateway_incidents i on i.gateway_id = g.id and i.resolved_at is null
where g.state = 'down' and i.opened_at > $1;

-- name: forget_moved_verdicts
-- Have channels given no verdict of a gateway that they were moved away from; a locked one is left for the next time.
with moved as materialized (
  select a.gateway_incident_id, a.channel_id
  from zapwatch_affected_channels a
  join zapwatch_gateway_incidents i on i.id = a.gateway_incident_id
  join zapwatch_channels c on c.channel_id = a.channel_id
  where a.verdict_due_at is not null and c.gateway_id <> i.gateway_id
  for no key update of a skip locked
)
update zapwatch_affected_channels a
set verdict_due_at = null
from moved m
where a.gateway_incident_id = m.gateway_incident_id and a.channel_id = m.channel_id;

-- name: claim_verdicts
-- Claim verdicts that are due, each for one replica until $2.
with due as materialized (
  select gateway_incident_id, channel_id
  from zapwatch_affected_channels
  where verdict_due_at <= $1
  order by verdict_due_at
  limit $3
  for no key update skip locked
)
update zapwatch_affected_channels a
set verdict_due_at = $2
from due
join zapwatch_gateway_incidents i on i.id = due.gateway_incident_id
join zapwatch_gateways g on g.id = i.gateway_id
join zapwatch_channels c on c.channel_id = due.channel_id
where a.gateway_incident_id = due.gateway_incident_id and a.channel_id = due.channel_id
returning a.gateway_incident_id, a.channel_id, i.cause,
  case when i.resolved_at is null and g.state = 'down' and c.gateway_id = g.id then g.failing_since end as since;

-- name: end_verdicts
-- End claims of verdicts that are given, each unless the claim is over. A locked one is being cancelled or claimed by others.
with given as materialized (
  select a.gateway_incident_id, a.channel_id
  from unnest($1::uuid[], $2::uuid[]) as u (gateway_incident_id, channel_id)
  join zapwatch_affected_channels a using (gateway_incident_id, channel_id)
  where a.verdict_due_at = $3
  for no key update of a skip locked
)
update zapwatch_affected_channels a
set verdict_due_at = null
from given g
where a.gateway_incident_id = g.gateway_incident_id and a.channel_id = g.channel_id;
