-- name: gateways_to_evaluate
-- The gateways that are to be evaluated now: with new results of probes ($2 failed, $3 answered), with a streak of failures
-- or refused keys that nothing has ended, with a mass loss, calm for long enough, with enough departures from open, or with
-- an incident and no watched channel.
-- One index look-up for each gateway. `patient`: it is neither down nor refuses keys, and may be evaluated a little later.
select g.id, g.state <> 'down' and i.cause is distinct from 'unauthorized' as patient
from zapwatch_gateways g
left join zapwatch_gateway_incidents i on i.gateway_id = g.id and i.resolved_at is null
where g.id = any ($2::uuid[])
  or (g.id = any ($3::uuid[]) and (g.state <> 'up' or i.id is not null or num_nonnulls(g.failing_since, g.refusing_since) > 0))
  or (i.cause = 'mass_loss' and g.calm_since is null)
  or g.calm_since <= $5
  or (i.id is not null and not exists (
    select
    from zapwatch_channels c
    join notification_channels n on n.id = c.channel_id
    where c.gateway_id = g.id and not c.removed and c.paused_at is null and n.deleted_at is null and n.is_active is not false
  ))
  or (g.state <> 'down' and (g.suspected_at <= $6 or g.refusing_since <= $6) and (i.id is null or i.cause <> 'unauthorized'))
  or (g.state <> 'down' and g.base_url <> '' and exists (
    select from zapwatch_states s
    where s.gateway_id = g.id and s.left_at > $1
    order by s.left_at
    offset $4 - 1
    limit 1));

-- name: lock_gateway_health
-- A gateway's health, locked until the end of the transaction; nothing while another replica has it locked.
select g.state, g.since, g.failing_since, g.failed_at, g.failed, g.failures, g.unavailable, g.perhaps_offline, g.suspected_at,
  g.refusing_since, g.refused_at, g.refused, g.refusals, g.try_at, g.tries, g.tried_at, g.lost, g.moved_at, g.calm_since,
  g.settles_until, g.falls, g.together_until, i.id as incident_id, i.cause, i.started_at as incident_started_at,
  i.id is null or exists (
    select
    from zapwatch_channels c
    join notification_channels n on n.id = c.channel_id
    where c.gateway_id = g.id and not c.removed and c.paused_at is null and n.deleted_at is null and n.is_active is not false
  ) as is_watched
from zapwatch_gateways g
left join zapwatch_gateway_incidents i on i.gateway_id = g.id and i.resolved_at is null
where g.id = $1
for no key update of g skip locked;

-- name: count_gateway_losses
-- What is to be known of a gateway's channels. Witnesses are those that an operator put there, or, where none did, those of
-- the tenant that came first. `left`: how many of them left open within one window $3, at most, since $2, and are away since $4 at least.
-- `together`: the same, back or not, within a window that ends after $7. `lost`: how many of the incident $5 are away: not
-- open, without a terminal reason, with their alerts on. `watched`, `probed`, `unkeyed` (those of them without a
-- key of their own), `witnesses` and `by_gateway_key` (of the channels $8) are counted only where they matter.
with watched as materialized (
  select channel_id, tenant_id, api_key is null as is_unkeyed, put_by is distinct from 'tenant' as by_operator
  from zapwatch_channels
  where gateway_id = $1 and not removed and paused_at is null
), witness as materialized (
  select channel_id, is_unkeyed
  from watched
  where by_operator or tenant_id = (select zapwatch_witness_tenant($1))
), recent as materialized (
  select channel_id, left_at, first_unhealthy_at is not null as away
  from zapwatch_states
  where gateway_id = $1 and left_at > $2 and state <> 'disconnected/unpaired' and reason is distinct from 'scan_needed'
), departure as materialized (
  select r.left_at, r.away and r.left_at <= $4 as away
  from recent r
  join witness using (channel_id)
  join notification_channels n on n.id = r.channel_id
  left join tenants t on t.id = n.tenant_id
  where (select count(*) from recent) >= $6 and (not r.away or case
    when n.metadata::jsonb ? 'alerts_enabled' or t.defaults::jsonb ? 'alerts_enabled'
    then zapwatch_alerts_enabled(n.metadata::jsonb, t.defaults::jsonb) else true end)
), away as (
  select count(*) over w as channels, min(left_at) over w as since
  from departure
  where away
  window w as (order by left_at range between $3::interval preceding and current row)
  order by 1 desc
  limit 1
), together as (
  select channels, since, until
  from (
    select count(*) over w as channels, min(left_at) over w as since, left_at as until
    from departure
    window w as (order by left_at range between $3::interval preceding and current row)
  ) d
  where until > $7
  order by 1 desc
  limit 1
)
select
  coalesce((select channels from away), 0) as left,
  (select since from away) as left_since,
  coalesce((select channels from together), 0) as together,
  (select since from together) as together_since,
  (select until from together) as together_until,
  case when $5::uuid is not null or (select count(*) from recent) >= $6 then (select count(*) from witness) else 0 end as watched,
  case when $5::uuid is null then 0 else (
    select count(*)
    from zapwatch_affected_channels a
    join zapwatch_states s using (channel_id)
    join witness using (channel_id)
    join notification_channels n on n.id = a.channel_id
    left join tenants t on t.id = n.tenant_id
    where a.gateway_incident_id = $5 and s.gateway_id = $1 and s.first_unhealthy_at is not null
      and s.state <> 'disconnected/unpaired' and s.reason is distinct from 'scan_needed'
      and case when n.metadata::jsonb ? 'alerts_enabled' or t.defaults::jsonb ? 'alerts_enabled'
        then zapwatch_alerts_enabled(n.metadata::jsonb, t.defaults::jsonb) else true end
  ) end as lost,
  case when $9 then (
    select count(*)
    from (select from zapwatch_states s join witness using (channel_id) where s.probe_due_at is not null limit $6) p
  ) else $6 end as probed,
  case when $9 then (
    select count(*)
    from (
      select from zapwatch_states s join witness using (channel_id) where is_unkeyed and s.probe_due_at is not null limit $6
    ) p
  ) else $6 end as unkeyed,
  array(select channel_id from witness where channel_id = any ($8::uuid[])) as witnesses,
  array(select channel_id from watched where is_unkeyed and channel_id = any ($8::uuid[])) as by_gateway_key;

-- name: left_together
-- The channels of a gateway that left open within this time, after $4.
select channel_id
from zapwatch_states
where gateway_id = $1 and left_at between $2 and $3 and left_at > $4;

-- name: note_left_together
-- Note up to which departure the channels of a gateway were told that they left together.
update zapwatch_gateways set together_until = $2 where id = $1 and (together_until is null or together_until < $2);

-- name: save_gateway_health
-- Save a gateway's health.
update zapwatch_gateways
set state = $2, since = $3, failing_since = $4, failed_at = $5, failed = $6, failures = $7, unavailable = $8,
  perhaps_offline = $9, suspected_at = $10, refusing_since = $11, refused_at = $12, refused = $13, refusals = $14,
  try_at = $15, tries = $16, tried_at = greatest(tried_at, $17), lost = $18, moved_at = $19, calm_since = $20,
  settles_until = $21, falls = $22
where id = $1;

-- name: open_gateway_incident
-- Open a gateway's incident with its alert, which is due at $6, or bring the open one up to date: a graver cause, or trouble
-- again; at most one for each gateway.
with incident as (
  insert into zapwatch_gateway_incidents as i (gateway_id, cause, details, started_at, opened_at)
  values ($1, $2, $3::jsonb, $4, $5)
  on conflict (gateway_id) where resolved_at is null do update
  set cause = excluded.cause, details = i.details || excluded.details, started_at = least(i.started_at, excluded.started_at)
  returning i.id, i.xmax = 0 as opened
), alert as (
  insert into zapwatch_alerts (gateway_incident_id, kind, due_at, not_before)
  select id, 'opened', $6, $6 from incident where opened
)
select id from incident;

-- name: resolve_gateway_incident
-- Resolve a gateway's incident, with its alert; $3: what resolved it, where that isn't its end.
with incident as (
  update zapwatch_gateway_incidents
  set resolved_at = greatest($2, started_at),
    duration_seconds = floor(extract(epoch from greatest($2, started_at) - started_at))::int,
    details = details || case when $3::text is null then '{}' else jsonb_build_object('resolved_by', $3::text) end
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
-- Attach the channels of a gateway that its incident is about: all that are watched.
with attached as (
  insert into zapwatch_affected_channels (gateway_incident_id, channel_id, tenant_id, incident_id)
  select $1, c.channel_id, c.tenant_id, i.id
  from zapwatch_channels c
  left join whatsapp_connection_incidents i on i.channel_id = c.channel_id and i.resolved_at is null
  where c.gateway_id = $2 and c.paused_at is null and not c.removed
  on conflict do nothing
  returning channel_id
)
update zapwatch_gateway_incidents set affected = affected + (select count(*) from attached)
where id = $1 and exists (select from attached);

-- name: attach_lost_channels
-- Attach the channels of a gateway that left open since $3 and are away since $4 at least, without a terminal reason: all,
-- or those of the tenant that alone is evidence of it.
with attached as (
  insert into zapwatch_affected_channels (gateway_incident_id, channel_id, tenant_id, incident_id)
  select $1, c.channel_id, c.tenant_id, i.id
  from zapwatch_states s
  join zapwatch_channels c using (channel_id)
  left join whatsapp_connection_incidents i on i.channel_id = c.channel_id and i.resolved_at is null
  where s.gateway_id = $2 and s.left_at >= $3 and s.left_at <= $4 and s.first_unhealthy_at is not null
    and s.state <> 'disconnected/unpaired' and s.reason is distinct from 'scan_needed'
    and c.paused_at is null and not c.removed
    and c.tenant_id = coalesce((select zapwatch_witness_tenant($2)), c.tenant_id)
    and not exists (
      select from zapwatch_affected_channels a where a.gateway_incident_id = $1 and a.channel_id = c.channel_id
    )
  on conflict do nothing
  returning channel_id
)
update zapwatch_gateway_incidents set affected = affected + (select count(*) from attached)
where id = $1 and exists (select from attached)
returning affected;

-- name: begin_verdicts
-- Have the channels of a gateway's incident given its verdict of a silence since $3: at once, or, where a channel emitted
-- anything since, when the sweep finds it silent for long enough. Say so where one did.
with due as (
  update zapwatch_affected_channels a
  set verdict_due_at = $4
  from zapwatch_states s
  where a.gateway_incident_id = $1 and s.channel_id = a.channel_id and s.gateway_id = $2
    and (s.emitted_at is null or s.emitted_at <= $3)
)
update zapwatch_gateway_incidents
set details = details || '{"webhooks_arrive": true}'
where id = $1 and exists (select from zapwatch_states where gateway_id = $2 and emitted_at > $3);

-- name: cancel_verdicts
-- Cancel the verdicts of a gateway's incident that are not given yet.
with pending as (
  select channel_id from zapwatch_affected_channels
  where gateway_incident_id = $1 and verdict_due_at is not null
  order by channel_id for no key update
)
update zapwatch_affected_channels a set verdict_due_at = null
from pending where a.gateway_incident_id = $1 and a.channel_id = pending.channel_id;

-- name: claim_settled_gateways
-- Claim gateways whose channels have had their time to settle; for ten seconds again and again: an incident with the cause
-- may have been about to be committed, or locked.
update zapwatch_gateways
set settles_until = case when settles_until > $1 - interval '10 seconds' then settles_until end
where id = any (array(
  select id from zapwatch_gateways where settles_until <= $1 for no key update skip locked
))
returning id;

-- name: spread_probes
-- Spread the probes of all channels of a gateway that is back over a span; locked ones are due anyway.
with mine as (
  select channel_id from zapwatch_states
  where gateway_id = $1 and probe_due_at is not null
  for no key update skip locked
)
update zapwatch_states s set probe_due_at = $2::timestamptz + random() * $3::interval
from mine where s.channel_id = mine.channel_id;

-- name: note_we_are_online
-- Note of a gateway's incident that it isn't our own line.
update zapwatch_gateway_incidents set details = details - 'perhaps_offline' where id = $1 and details ? 'perhaps_offline';

-- name: hasten_other_probes
-- Make probes of some open channels of a gateway due now, others than those that went unanswered or were refused.
with others as (
  select channel_id from zapwatch_states
  where gateway_id = $1 and probe_due_at > $2 and state = 'open' and channel_id <> all ($3::uuid[])
  limit $4
  for no key update skip locked
)
update zapwatch_states s set probe_due_at = $2 from others where s.channel_id = others.channel_id;

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

-- name: note_trial
-- Note a recovery probe with a known result: when it began, and whether it failed.
update zapwatch_gateways
set tried_at = greatest(tried_at, $2), failed_at = case when $3 and state = 'down' then greatest(failed_at, $2) else failed_at end
where id = $1;

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
