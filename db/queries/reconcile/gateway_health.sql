-- name: gateways_to_evaluate
-- The gateways that are to be evaluated now: with new results of probes ($2 failed, $3 answered), with a failure streak
-- that no answer has ended, with a hold to renew, or with a mass loss. One index look-up for each gateway.
select g.id
from zapwatch_gateways g
left join zapwatch_gateway_incidents i on i.gateway_id = g.id and i.resolved_at is null
where g.id = any ($2::uuid[])
  or (g.id = any ($3::uuid[]) and (g.state <> 'up' or g.failing_since is not null or g.doubted_until is not null))
  or (i.id is not null and g.held_until <= $4)
  or i.cause = 'mass_loss'
  or (i.id is null and g.suspected_at <= $6)
  or (i.id is null and g.base_url <> '' and exists (
    select from zapwatch_states s
    where s.gateway_id = g.id and s.left_at > greatest($1, g.held_until)
    order by s.left_at
    offset $5 - 1
    limit 1));

-- name: lock_gateway_health
-- A gateway's health, locked until the end of the transaction; nothing while another replica has it locked.
select g.state, g.since, g.failing_since, g.failed_at, g.failed, g.failures, g.unavailable, g.suspected_at, g.doubted_at, g.doubted_until,
  g.held_until, g.try_at, g.tries, g.lost, g.moved_at, i.id as incident_id, i.cause,
  i.started_at as incident_started_at
from zapwatch_gateways g
left join zapwatch_gateway_incidents i on i.gateway_id = g.id and i.resolved_at is null
where g.id = $1
for no key update of g skip locked;

-- name: count_gateway_losses
-- How many channels of a gateway left open within one window, at most, and since when; how many there are in all, counted
-- only when that matters; how many of an incident's are not open; how many can be probed.
with departures as (
  select s.left_at
  from zapwatch_states s
  join zapwatch_channels c using (channel_id)
  where s.gateway_id = $1 and s.left_at > $2 and c.paused_at is null and not c.removed
), together as (
  select count(*) over w as channels, min(left_at) over w as since
  from departures
  window w as (order by left_at range between $3::interval preceding and current row)
  order by 1 desc
  limit 1
)
select
  coalesce((select channels from together), 0) as left,
  (select since from together) as left_since,
  case when $4::uuid is not null or (select channels from together) >= $5 then (
    select count(*) from zapwatch_channels c where c.gateway_id = $1 and not c.removed and c.paused_at is null
  ) else 0 end as watched,
  case when $4::uuid is null then 0 else (
    select count(*)
    from zapwatch_affected_channels a
    join zapwatch_states s using (channel_id)
    join zapwatch_channels c using (channel_id)
    where a.gateway_incident_id = $4 and s.first_unhealthy_at is not null and c.paused_at is null and not c.removed
  ) end as lost,
  (
    select count(*)
    from (select from zapwatch_states where gateway_id = $1 and probe_due_at is not null limit $5) p
  ) as probed;

-- name: save_gateway_health
-- Save a gateway's health.
update zapwatch_gateways
set state = $2, since = $3, failing_since = $4, failed_at = $5, failed = $6, failures = $7, unavailable = $8,
  suspected_at = $9, doubted_at = $10, doubted_until = $11, held_until = $12, try_at = $13, tries = $14, lost = $15,
  moved_at = $16
where id = $1;

-- name: open_gateway_incident
-- Open a gateway's incident with its alert, or give the open one a graver cause; at most one for each gateway.
with incident as (
  insert into zapwatch_gateway_incidents as i (gateway_id, cause, details, started_at, opened_at)
  values ($1, $2, $3::jsonb, $4, $5)
  on conflict (gateway_id) where resolved_at is null do update
  set cause = excluded.cause, details = i.details || excluded.details, started_at = least(i.started_at, excluded.started_at)
  returning i.id, i.xmax = 0 as opened
), alert as (
  insert into zapwatch_alerts (gateway_incident_id, kind) select id, 'opened' from incident where opened
)
select id from incident;

-- name: resolve_gateway_incident
-- Resolve a gateway's incident, with its alert.
with incident as (
  update zapwatch_gateway_incidents
  set resolved_at = greatest($2, started_at),
    duration_seconds = floor(extract(epoch from greatest($2, started_at) - started_at))::int
  where id = $1 and resolved_at is null
  returning id
)
insert into zapwatch_alerts (gateway_incident_id, kind) select id, 'resolved' from incident;

-- name: acknowledge_gateway_incident
-- Acknowledge a gateway's incident, unless it is already, and return it.
update zapwatch_gateway_incidents i
set acknowledged_at = coalesce(i.acknowledged_at, now())
from zapwatch_gateways g
where i.id = $1 and g.id = i.gateway_id
returning i.id, i.gateway_id, g.provider, i.cause, i.affected, i.details::text as details, i.started_at, i.resolved_at,
  i.duration_seconds, i.opened_at, i.acknowledged_at;

-- name: attach_channels
-- Attach the channels that a gateway's incident stands for: all that are watched, or those that left open since $3.
with attached as (
  insert into zapwatch_affected_channels (gateway_incident_id, channel_id, tenant_id, incident_id)
  select $1, c.channel_id, c.tenant_id, i.id
  from zapwatch_channels c
  join zapwatch_states s using (channel_id)
  left join whatsapp_connection_incidents i on i.channel_id = c.channel_id and i.resolved_at is null
  where s.gateway_id = $2 and ($3::timestamptz is null or s.left_at >= $3) and c.paused_at is null and not c.removed
  on conflict do nothing
  returning channel_id
)
update zapwatch_gateway_incidents set affected = affected + (select count(*) from attached)
where id = $1 and exists (select from attached);

-- name: spread_probes
-- Spread the probes of all channels of a gateway that is back over a span; locked ones are due anyway.
with mine as (
  select channel_id from zapwatch_states
  where gateway_id = $1 and probe_due_at is not null
  for no key update skip locked
)
update zapwatch_states s set probe_due_at = $2::timestamptz + random() * $3::interval
from mine where s.channel_id = mine.channel_id;

-- name: hasten_other_probes
-- Make probes of some open channels of a gateway due now, others than those that went unanswered.
with others as (
  select channel_id from zapwatch_states
  where gateway_id = $1 and probe_due_at > $2 and state = 'open' and channel_id <> all ($3::uuid[])
  limit $4
  for no key update skip locked
)
update zapwatch_states s set probe_due_at = $2 from others where s.channel_id = others.channel_id;

-- name: doubt_gateways
-- Blame nobody for the silence of these gateways until then: it may be us who are offline.
update zapwatch_gateways set doubted_at = $2, doubted_until = $3
where state <> 'down' and doubted_until is null
  and id in (select id from zapwatch_gateways where id = any ($1::uuid[]) order by id for no key update skip locked);

-- name: claim_recovery_probes
-- Claim the due recovery probes of gateways that are down, each for one replica until the lease ends.
update zapwatch_gateways
set try_at = $2, tries = tries + 1
where id = any (array(
  select id from zapwatch_gateways where try_at <= $1 order by try_at limit $3 for no key update skip locked
))
returning id, tries;

-- name: recovery_probe_targets
-- A channel of each of these gateways to ask about, another one each time. They are picked once, before anything is
-- joined to them: a join that looked at the pick again for each of its rows would find another one each time.
with picked as materialized (
  select u.gateway_id, s.channel_id, s.version, s.probe_due_at
  from unnest($1::uuid[]) as u (gateway_id)
  cross join lateral (
    select channel_id, version, probe_due_at
    from zapwatch_states
    where gateway_id = u.gateway_id and probe_due_at is not null
    order by probe_due_at
    limit 1
    offset floor(random() * least($2::int, (
      select count(*)
      from (select from zapwatch_states where gateway_id = u.gateway_id and probe_due_at is not null limit $2) p
    )))::int
  ) s
)
select p.channel_id, p.version, p.probe_due_at as due_at, c.gateway_id, c.provider, g.base_url, c.instance,
  c.api_key as channel_key, g.api_key as gateway_key, c.expires_at
from picked p
join zapwatch_channels c using (channel_id)
join zapwatch_gateways g on g.id = c.gateway_id;

-- name: end_recovery_probe
-- Schedule a gateway's next recovery probe, unless it is back or another replica has claimed it.
update zapwatch_gateways set try_at = $3 where id = $1 and try_at = $2;

-- name: gateways_elsewhere
-- Some gateways of these providers, besides these gateways, that have channels to probe.
select g.id
from zapwatch_gateways g
where g.id <> all ($1::uuid[]) and g.base_url <> '' and g.provider = any ($3::text[])
  and exists (select from zapwatch_states where gateway_id = g.id and probe_due_at is not null)
order by g.state = 'up' desc, random()
limit $2;

-- name: count_gateways
-- How many gateways with channels there are by state, for the metrics.
select g.state, count(*) as gateways
from zapwatch_gateways g
where g.base_url <> '' and exists (select from zapwatch_channels c where c.gateway_id = g.id and not c.removed)
group by 1;
