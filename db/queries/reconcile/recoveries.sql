-- name: lock_recoveries
-- Let one at a time, over all replicas, hand out episodes and tries. What is spent is counted by the next statements,
-- whose snapshots see all that was handed out before; the time is the database's.
select pg_advisory_xact_lock(hashtextextended('zapwatch recoveries', 0));

-- name: resume_recoveries
-- Claim episodes whose claim is over.
update zapwatch_recoveries
set claimed_until = $2
where ended_at is null and (claimed_until is null or claimed_until <= $1)
returning channel_id;

-- name: gateway_orders
-- Of gateways (null: those with recoveries that are due) what bounds orders to them: `free`, how many more they may get
-- within $4, each running episode counted as one; in a mass loss (also in one that has no incident yet: $5 channels that
-- left open within $6 are away, and a fifth of all, of those that are evidence of their gateway) `lost`; whether a channel that was given an order since `is_back`, and
-- those that were given one and are not, `tried`. Gateways that are down, refuse the key or settle get none: no row.
with gateway as (
  select g.id, zapwatch_witness_tenant(g.id) as witness,
    case when i.cause = 'mass_loss' and g.calm_since is null then i.started_at end as lost_since
  from zapwatch_gateways g
  left join zapwatch_gateway_incidents i on i.gateway_id = g.id and i.resolved_at is null
  where case when $2::uuid[] is null
      then exists (select from zapwatch_states s where s.gateway_id = g.id and s.recovery_due_at <= $1)
      else g.id = any ($2::uuid[])
    end
    and g.state <> 'down' and (i.cause is distinct from 'unauthorized' or g.calm_since is not null)
    and (g.settles_until is null or g.settles_until <= $1)
), loss as (
  select g.id, coalesce(g.lost_since, case when a.channels >= $5::int and a.channels * 5 >= (
    select count(*)
    from zapwatch_channels c
    where c.gateway_id = g.id and c.paused_at is null and not c.removed
      and case when g.witness is null then c.put_by is distinct from 'tenant' else c.tenant_id = g.witness end
  ) then a.since end) as since
  from gateway g
  cross join lateral (
    select count(*) as channels, min(s.left_at) as since
    from zapwatch_states s
    join zapwatch_channels c using (channel_id)
    where s.gateway_id = g.id and s.left_at > $1 - $6::interval and s.first_unhealthy_at is not null
      and s.state <> 'disconnected/unpaired' and s.reason is distinct from 'scan_needed'
      and case when g.witness is null then c.put_by is distinct from 'tenant' else c.tenant_id = g.witness end
  ) a
)
select l.id, l.since is not null as lost, coalesce(o.is_back, false) as is_back,
  coalesce(o.tried, '{}') as tried, o.running,
  $3::int - o.running - (
    select count(*)
    from zapwatch_recoveries r
    cross join unnest(r.tried_at) as t (at)
    where r.gateway_id = l.id and r.last_tried_at > statement_timestamp() - $4::interval
      and t.at > statement_timestamp() - $4::interval
  ) as free
from loss l
cross join lateral (
  select bool_or(s.state = 'open') filter (where r.last_tried_at >= l.since) as is_back,
    array_agg(r.channel_id) filter (where r.last_tried_at >= l.since and s.recovery_due_at is not null) as tried,
    count(*) filter (where r.ended_at is null) as running
  from zapwatch_recoveries r
  join zapwatch_states s on s.channel_id = r.channel_id and s.gateway_id = r.gateway_id
  where r.gateway_id = l.id and (r.ended_at is null or r.last_tried_at >= l.since)
) o;

-- name: begin_recoveries
-- Begin episodes for channels whose recovery is due and that had none within $4: of each of these gateways the longest due,
-- and no more than so many.
insert into zapwatch_recoveries (channel_id, tenant_id, gateway_id, asked_by, began_at, claimed_until)
select due.channel_id, due.tenant_id, g.id, 'clock', statement_timestamp(), $2
from unnest($5::uuid[], $6::bigint[]) as g (id, free)
cross join lateral (
  select s.channel_id, s.tenant_id, s.recovery_due_at
  from zapwatch_states s
  where s.gateway_id = g.id and s.recovery_due_at <= $1 and s.state in ('connecting', 'disconnected/dropped')
    and not exists (
      select from zapwatch_recoveries r
      where r.channel_id = s.channel_id
        and (r.ended_at is null or r.last_tried_at > statement_timestamp() - $4::interval)
    )
  order by s.recovery_due_at
  limit g.free
) due
order by due.recovery_due_at
limit $3
on conflict do nothing
returning channel_id;

-- name: spent_recoveries
-- Channels whose recovery is due although they have had theirs, and when they may have another.
select s.channel_id, max(r.last_tried_at) + $2::interval as again_at
from zapwatch_states s
join zapwatch_recoveries r using (channel_id)
where s.recovery_due_at <= $1 and r.last_tried_at > statement_timestamp() - $2::interval
  and not exists (
    select from zapwatch_recoveries w where w.channel_id = s.channel_id and w.ended_at is null
  )
group by s.channel_id
limit $3;

-- name: recovery_spent
-- What a channel has of its budgets: its last episode, and when its gateway may be given the next order.
select r.id, r.id is not null and r.ended_at is null as running, cardinality(r.tried_at) as tries, r.last_tried_at, h.free_at,
  statement_timestamp() as now
from zapwatch_states s
left join lateral (
  select * from zapwatch_recoveries where channel_id = s.channel_id order by began_at desc limit 1
) r on true
left join lateral (
  select t.at + $3::interval as free_at
  from zapwatch_recoveries o
  cross join unnest(o.tried_at) as t (at)
  where o.gateway_id = s.gateway_id and o.last_tried_at > statement_timestamp() - $3::interval
    and t.at > statement_timestamp() - $3::interval
  order by t.at desc
  offset $2::int - 1
  limit 1
) h on true
where s.channel_id = $1;

-- name: begin_recovery
-- Begin an episode that an operator requests.
insert into zapwatch_recoveries (channel_id, tenant_id, gateway_id, asked_by, began_at, claimed_until)
select channel_id, tenant_id, gateway_id, 'operator', statement_timestamp(), $2
from zapwatch_states
where channel_id = $1;

-- name: reopen_recovery
-- Resume an episode that has ended and has tries left, when an operator requests it.
update zapwatch_recoveries
set asked_by = 'operator', ended_at = null, outcome = null, claimed_until = $2
where id = $1 and ended_at is not null;

-- name: read_context
-- All that a recovery needs of a channel: its target, its status, and the episode that runs.
select s.channel_id, s.version, coalesce(s.recovery_due_at, now()) as due_at, c.gateway_id, c.provider,
  coalesce(g.base_url, '') as base_url, c.instance, c.api_key as channel_key, g.api_key as gateway_key, c.expires_at,
  s.state, s.reason, s.since, s.recovery_due_at is not null as wanted, g.version as gateway_version,
  c.paused_at is not null or not n.is_active as paused,
  g.state = 'down' as gateway_down, g.settles_until > now() as gateway_settles,
  case when g.calm_since is null then i.cause end as gateway_cause,
  r.id as recovery_id, r.asked_by, coalesce(cardinality(r.tried_at), 0) as tries
from zapwatch_states s
join zapwatch_channels c using (channel_id)
join notification_channels n on n.id = c.channel_id
left join zapwatch_gateways g on g.id = c.gateway_id
left join zapwatch_gateway_incidents i on i.gateway_id = g.id and i.resolved_at is null
left join zapwatch_recoveries r on r.channel_id = s.channel_id and r.ended_at is null
where s.channel_id = $1 and ($2::uuid is null or c.tenant_id = $2) and not c.removed and n.deleted_at is null;

-- name: running_recovery
-- The gateway of a channel's running episode, and its requester.
select gateway_id, asked_by from zapwatch_recoveries where channel_id = $1 and ended_at is null and claimed_until = $2;

-- name: take_try
-- Hand out one order of an episode, if its claim is still ours, the channel's state is the same, and no budget is spent: $4 tries,
-- $5 apart, and $6 orders to a gateway within $7.
update zapwatch_recoveries r
set action = $8, tried_at = r.tried_at || statement_timestamp(), last_tried_at = statement_timestamp()
from zapwatch_states s
join zapwatch_channels c using (channel_id)
join notification_channels n on n.id = c.channel_id
where r.channel_id = $1 and r.ended_at is null and r.claimed_until = $2
  and s.channel_id = r.channel_id and s.state = $3 and (s.recovery_due_at is not null or r.asked_by = 'operator')
  and c.gateway_id = r.gateway_id and c.paused_at is null and not c.removed and n.is_active and n.deleted_at is null
  and cardinality(r.tried_at) < $4::int
  and (r.last_tried_at is null or r.last_tried_at <= statement_timestamp() - $5::interval)
  and $6::int > (
    select count(*)
    from zapwatch_recoveries o
    cross join unnest(o.tried_at) as t (at)
    where o.gateway_id = r.gateway_id and o.last_tried_at > statement_timestamp() - $7::interval
      and t.at > statement_timestamp() - $7::interval
  )
returning cardinality(r.tried_at);

-- name: show_recovery
-- Write for other applications that an order was given, unless the row is locked.
update notification_channels
set auto_recovery_attempts = $2, last_recovery_at = now()
where id in (select id from notification_channels where id = $1 for no key update skip locked);

-- name: end_recovery
-- End an episode, unless another replica has taken it over.
update zapwatch_recoveries
set ended_at = statement_timestamp(), outcome = $3, claimed_until = null
where channel_id = $1 and ended_at is null and claimed_until = $2;

-- name: drop_recovery
-- Forget an episode in which no order was given: it counts for nothing.
delete from zapwatch_recoveries
where channel_id = $1 and ended_at is null and claimed_until = $2 and tried_at = '{}';

-- name: release_recoveries
-- Give claimed episodes back, each unless the claim is over; a locked row is left to its lease.
with mine as (
  select r.id
  from zapwatch_recoveries r
  join unnest($1::uuid[], $2::timestamptz[]) as claim (channel_id, until) using (channel_id)
  where r.ended_at is null and r.claimed_until = claim.until
  for no key update of r skip locked
)
update zapwatch_recoveries r set claimed_until = null from mine where r.id = mine.id;

-- name: last_recovery
-- A channel's newest episode in which an order was given.
select action, asked_by, cardinality(tried_at) as tries, began_at, last_tried_at, ended_at, outcome
from zapwatch_recoveries
where channel_id = $1 and ($2::uuid is null or tenant_id = $2) and last_tried_at is not null
order by began_at desc
limit 1;

-- name: prune_recoveries
-- Forget episodes after their time, a few at a time.
delete from zapwatch_recoveries
where id = any (array(select id from zapwatch_recoveries where ended_at < $1 limit 1000 for update skip locked));
