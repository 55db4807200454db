-- name: claim_records
-- Claim gateways whose records are due to be read, and put off the next reading.
update zapwatch_gateways
set records_due_at = $1::timestamptz + $3::interval * (1 + random() / 5)
where id = any (array(
  select id
  from zapwatch_gateways
  where records_due_at <= $1 and provider = any ($2::text[]) and version is not null and base_url <> ''
    and state <> 'down'
  order by records_due_at
  limit $4
  for no key update skip locked
))
returning id, provider, base_url, version;

-- name: open_targets
-- The channels of a gateway that are open and watched; first those without a key of their own, for the gateway's key.
select s.channel_id, s.version, s.probe_due_at as due_at, c.gateway_id, c.provider, g.base_url, c.instance,
  c.api_key as channel_key, g.api_key as gateway_key, c.expires_at
from zapwatch_states s
join zapwatch_channels c using (channel_id)
join zapwatch_gateways g on g.id = c.gateway_id
where s.gateway_id = $1 and s.probe_due_at is not null and s.state = 'open' and c.instance is not null
order by c.api_key is not null, random();

-- name: note_candidates
-- Make channels with a sign candidates. One that was found alive is none while its sign is the same, for $5.
insert into zapwatch_suspicions (channel_id, tenant_id, sign, suspected_at, due_at)
select c.channel_id, c.tenant_id, u.sign, $3::timestamptz, $3::timestamptz + $4::interval * random()
from unnest($1::uuid[], $2::text[]) as u (channel_id, sign)
join zapwatch_channels c using (channel_id)
order by c.channel_id
on conflict (channel_id) do update
set sign = excluded.sign, suspected_at = excluded.suspected_at, due_at = excluded.due_at, doubted_at = null
where zapwatch_suspicions.suspected_at is null and (
  zapwatch_suspicions.sign is distinct from excluded.sign or zapwatch_suspicions.asked_at <= $3::timestamptz - $5::interval);

-- name: drop_candidates
-- Drop candidates whose sign is gone; a channel that was found dead gets deep probes until it is found alive.
update zapwatch_suspicions z
set sign = null, suspected_at = null, due_at = null, doubted_at = null
where z.channel_id in (
  select w.channel_id
  from zapwatch_suspicions w
  join zapwatch_states s using (channel_id)
  where w.channel_id = any ($1::uuid[]) and w.sign is not null and s.reason is distinct from 'open_but_dead'
  order by w.channel_id
  for no key update of w skip locked
);

-- name: claim_deep_probes
-- Claim channels that are due for a deep probe, each for one replica, and put off the next: however a row came to be
-- due, $2 has passed since the last one. Only those that their gateway calls open, and few of a gateway. A first
-- unanswered deep probe counts only without a later event of the channel.
with due as (
  select z.channel_id, row_number() over (partition by s.gateway_id order by z.due_at) as rank
  from zapwatch_suspicions z
  join zapwatch_states s using (channel_id)
  join zapwatch_gateways g on g.id = s.gateway_id and g.state <> 'down'
  where z.due_at <= $1::timestamptz and (z.asked_at is null or z.asked_at <= $1::timestamptz - $2::interval)
    and s.probe_due_at is not null and (s.state = 'open' or s.reason = 'open_but_dead')
), mine as (
  select z.channel_id
  from zapwatch_suspicions z
  join due using (channel_id)
  where due.rank <= $3 and z.due_at <= $1 and (z.asked_at is null or z.asked_at <= $1::timestamptz - $2::interval)
  limit $4
  for no key update of z skip locked
), claimed as (
  update zapwatch_suspicions z
  set asked_at = $1, due_at = $1::timestamptz + $2::interval * (1 + random() / 5)
  from mine
  where z.channel_id = mine.channel_id
  returning z.channel_id, z.doubted_at
)
select s.channel_id, s.version, s.probe_due_at as due_at, c.gateway_id, c.provider, g.base_url, c.instance,
  c.api_key as channel_key, g.api_key as gateway_key, c.expires_at,
  case when z.doubted_at >= greatest(s.since, s.last_event_at) then z.doubted_at end as doubted_at
from claimed z
join zapwatch_states s using (channel_id)
join zapwatch_channels c using (channel_id)
join zapwatch_gateways g on g.id = c.gateway_id;

-- name: settle_deep_probe
-- Keep a deep probe's outcome: alive ends the candidacy, any other is followed by another deep probe.
update zapwatch_suspicions
set outcome = $2, doubted_at = $3,
  suspected_at = case when $2 <> 'alive' then coalesce(suspected_at, asked_at) end,
  due_at = case when $2 <> 'alive' then coalesce(due_at, asked_at + $4::interval) end
where channel_id = $1;
