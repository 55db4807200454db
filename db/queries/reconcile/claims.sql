-- name: claim_deadlines
-- Claim channels whose deadline has come, each for one replica until the lease ends. `queued`: the channel is
-- being probed, or is due while as many of its gateway are due as it has concurrency slots.
update zapwatch_states s
set claimed_until = $2
where channel_id = any (array(
  select channel_id
  from zapwatch_states
  where due_at <= $1 and (claimed_until is null or claimed_until < $1)
  order by due_at
  limit $3
  for update skip locked
))
returning channel_id, greatest(due_at, 'epoch') as due_at, probe_due_at <= $1 and (
  coalesce(probe_claimed_until > $1, false)
  or exists (
    select
    from zapwatch_states
    where gateway_id = s.gateway_id and probe_due_at <= $1
    order by probe_due_at
    offset $4 - 1
    limit 1
  )
) as queued;

-- name: release_deadlines
-- Give claimed deadlines back, each unless the claim is over; a locked row is left to its lease.
with mine as (
  select s.channel_id
  from zapwatch_states s
  join unnest($1::uuid[], $2::timestamptz[]) as claim (channel_id, until) using (channel_id)
  where s.claimed_until = claim.until
  for no key update of s skip locked
)
update zapwatch_states s set claimed_until = null from mine where s.channel_id = mine.channel_id;

-- name: release_probes
-- Give claimed probes back, each unless the claim is over; a locked row is left to its lease.
with mine as (
  select s.channel_id
  from zapwatch_states s
  join unnest($1::uuid[], $2::timestamptz[]) as claim (channel_id, until) using (channel_id)
  where s.probe_claimed_until = claim.until
  for no key update of s skip locked
)
update zapwatch_states s set probe_claimed_until = null from mine where s.channel_id = mine.channel_id;

-- name: claim_probes
-- Claim channels that are due to be probed, each for one replica until the lease ends: of each gateway the longest due
-- unclaimed ones, no more than it has free concurrency slots. Gateways take turns, so that none waits behind another.
-- Locked channels come without a target; those of $5 are left out. A gateway that is down has no concurrency slots: it
-- gets recovery probes, one at a time.
with due as (
  select w.channel_id
  from zapwatch_gateways g
  cross join lateral (
    select s.channel_id, s.probe_due_at, s.probe_claimed_until, row_number() over (order by s.probe_due_at) as slot
    from zapwatch_states s
    where s.gateway_id = g.id and s.probe_due_at <= $1 and s.channel_id <> all ($5::uuid[])
    order by s.probe_due_at
    limit $3
  ) w
  where (w.probe_claimed_until is null or w.probe_claimed_until <= $1) and g.try_at is null
  order by w.slot, w.probe_due_at
  limit $4
), mine as (
  select s.channel_id
  from zapwatch_states s
  join due using (channel_id)
  where s.probe_claimed_until is null or s.probe_claimed_until <= $1
  for no key update of s skip locked
), claimed as (
  update zapwatch_states s
  set probe_claimed_until = $2
  from mine
  join zapwatch_channels c on c.channel_id = mine.channel_id
  join zapwatch_gateways g on g.id = c.gateway_id
  where s.channel_id = mine.channel_id
  returning s.channel_id, s.version, s.probe_due_at as due_at, c.gateway_id, c.provider, g.base_url, c.instance,
    c.api_key as channel_key, g.api_key as gateway_key, c.expires_at
)
select due.channel_id, version, due_at, gateway_id, provider, base_url, instance, channel_key, gateway_key, expires_at
from due
left join claimed using (channel_id);

-- name: put_off_probes
-- Put off the probes of channels that can't be made now, for a reason of ours. A claim until then marks it.
update zapwatch_states set probe_due_at = $2, probe_claimed_until = $2
where channel_id = any ($1::uuid[]) and probe_due_at is not null;

-- name: probe_target
-- The target for a channel, whether or not it is due; `paused`: it may not be probed.
select s.channel_id, s.version, coalesce(s.probe_due_at, now()) as due_at, c.gateway_id, c.provider,
  coalesce(g.base_url, '') as base_url, c.instance, c.api_key as channel_key, g.api_key as gateway_key, c.expires_at,
  c.paused_at is not null or not n.is_active as paused
from zapwatch_states s
join zapwatch_channels c using (channel_id)
join notification_channels n on n.id = c.channel_id
left join zapwatch_gateways g on g.id = c.gateway_id
where s.channel_id = $1 and ($2::uuid is null or c.tenant_id = $2) and not c.removed and n.deleted_at is null;

-- name: control_targets
-- Other channels of a gateway, open ones first: do their probes fail, too?
select s.channel_id, s.version, s.probe_due_at as due_at, c.gateway_id, c.provider, g.base_url, c.instance,
  c.api_key as channel_key, g.api_key as gateway_key, c.expires_at
from (
  (select channel_id, version, probe_due_at, 1 as turn from zapwatch_states
   where gateway_id = $1 and channel_id <> $2 and probe_due_at is not null and state = 'open' limit $3)
  union all
  (select channel_id, version, probe_due_at, 2 as turn from zapwatch_states
   where gateway_id = $1 and channel_id <> $2 and probe_due_at is not null and state <> 'open' limit $3)
  order by turn
  limit $3
) s
join zapwatch_channels c using (channel_id)
join zapwatch_gateways g on g.id = c.gateway_id
order by s.turn;

-- name: claim_subscriptions
-- Claim channels of these providers whose subscription is to be read, and put off the next reading.
with due as (
  select channel_id
  from zapwatch_channels
  where provider = any ($1::text[]) and subscription_due_at <= $2 and not removed
  order by subscription_due_at
  limit $4
  for no key update skip locked
), claimed as (
  update zapwatch_channels c
  set subscription_due_at = $3
  from due
  where c.channel_id = due.channel_id
  returning c.channel_id, c.gateway_id, c.provider, c.instance, c.api_key, c.expires_at
)
select c.channel_id, 0::bigint as version, $2::timestamptz as due_at, c.gateway_id, c.provider,
  coalesce(g.base_url, '') as base_url, c.instance, c.api_key as channel_key, g.api_key as gateway_key, c.expires_at
from claimed c
left join zapwatch_gateways g on g.id = c.gateway_id;

-- name: settle_subscription
-- Keep a subscription's end, and when to read it again. Where a warning of its end is due, note it as a change: once for
-- each number of days and each end, even when two replicas settle it.
with before as (
  select channel_id, tenant_id, warned_days, warned_of is not distinct from $2::timestamptz as is_known, (
    select min(days) from unnest($6::int[]) as t (days)
    where $2 > $5::timestamptz and $2 <= $5 + days * interval '24 hours'
  ) as days
  from zapwatch_channels
  where channel_id = $1
  for no key update
), settled as (
  update zapwatch_channels c
  set expires_at = $2, payment_status = $3, subscription_due_at = $4,
    warned_of = case when b.days is null then c.warned_of else $2 end,
    warned_days = case when b.is_known then least(b.days, c.warned_days) else coalesce(b.days, c.warned_days) end
  from before b
  where c.channel_id = b.channel_id
)
insert into zapwatch_changes (channel_id, tenant_id, event, expires_at, due_at)
select channel_id, tenant_id, 'channel.expiring', $2, $5
from before
where days is not null and not (is_known and warned_days <= days);

-- name: claim_versions
-- Claim gateways of these providers whose version is to be read, and put off the next reading.
update zapwatch_gateways
set version_due_at = $2
where id = any (array(
  select id
  from zapwatch_gateways
  where version_due_at <= $1 and base_url <> '' and provider = any ($4::text[])
  order by version_due_at
  limit $3
  for update skip locked
))
returning id, provider, base_url, version;

-- name: settle_version
-- Keep a gateway's version, and when to read it again; say whether the version is another one than before.
update zapwatch_gateways g
set version = $2, version_due_at = $3
from (select id, version from zapwatch_gateways where id = $1 for no key update) before
where g.id = before.id
returning before.version is distinct from g.version;
