-- name: claim_bulk_probes
-- Claim gateways of these providers whose bulk probe is due, by putting off the next one; `worthwhile` are those with
-- enough channels whose probe is due by $4. Gateways that are down are left to their recovery probes.
with due as (
  select g.id, exists (
    select
    from zapwatch_states s
    where s.gateway_id = g.id and s.probe_due_at <= $4
    order by s.probe_due_at
    offset $5 - 1
    limit 1
  ) as worthwhile
  from zapwatch_gateways g
  where g.sweep_due_at <= $2 and g.provider = any ($1::text[]) and g.base_url <> '' and g.try_at is null
  order by g.sweep_due_at
  limit $6
  for no key update of g skip locked
)
update zapwatch_gateways g
set sweep_due_at = $3
from due
where g.id = due.id
returning g.id, g.provider, g.base_url, g.api_key, g.sweeps as supports_bulk, due.worthwhile;

-- name: settle_bulk_probe
-- Keep whether one call reports all channels of a gateway, and when to make the next one.
update zapwatch_gateways set sweeps = $2, sweep_due_at = $3 where id = $1;

-- name: bulk_probe_channels
-- The channels of a gateway that are probed and are known to have or to lack a session, with their versions.
select s.channel_id, s.version, s.state, s.probe_due_at, c.instance
from zapwatch_states s
join zapwatch_channels c using (channel_id)
where s.gateway_id = $1 and s.probe_due_at is not null and s.state not in ('unknown', 'error');

-- name: hold_concurrency_slots
-- Claim the longest due unclaimed channels of a gateway, so that its concurrency slots are taken.
with mine as (
  select s.channel_id
  from zapwatch_states s
  where s.gateway_id = $1 and s.probe_due_at <= $2 and (s.probe_claimed_until is null or s.probe_claimed_until <= $2)
  order by s.probe_due_at
  limit $4
  for no key update skip locked
)
update zapwatch_states s set probe_claimed_until = $3 from mine where s.channel_id = mine.channel_id
returning s.channel_id;

-- name: hasten_probes
-- Make probes due now of channels that are unclaimed and unchanged; locked rows are skipped.
with mine as (
  select s.channel_id
  from zapwatch_states s
  join unnest($1::uuid[], $2::bigint[]) as u (channel_id, version) using (channel_id)
  where s.version = u.version and s.probe_due_at > $3
    and (s.probe_claimed_until is null or s.probe_claimed_until <= $3)
  order by s.channel_id
  for no key update of s skip locked
)
update zapwatch_states s set probe_due_at = $3 from mine where s.channel_id = mine.channel_id;
