-- name: due_changes
-- Changes of channels that are due for routing, with the status of their channels; locked for this replica. One that
-- comes after another of its channel that is put off waits, too.
select c.id, c.channel_id, c.tenant_id, c.event, c.previous_state, c.state, c.reason, c.since, c.version, c.expires_at,
  c.created_at,
  c.event = 'channel.expiring' and (z.expires_at is distinct from c.expires_at or c.expires_at <= $1) as is_over,
  n.metadata::text as metadata, t.defaults::text as defaults, z.paused_at is not null as paused,
  coalesce(z.removed or n.deleted_at is not null or not n.is_active, false) as removed,
  zapwatch_quiet_until($1, c.tenant_id, c.channel_id, z.gateway_id) as quiet_until
from zapwatch_changes c
join notification_channels n on n.id = c.channel_id
left join zapwatch_channels z on z.channel_id = c.channel_id
left join tenants t on t.id = c.tenant_id
where c.due_at <= $1 and not exists (
  select from zapwatch_changes o
  where o.channel_id = c.channel_id and o.event = c.event and o.id < c.id and o.due_at > $1
)
order by c.id
limit $2
for update of c skip locked;

-- name: forget_changes
-- Delete changes that were routed.
delete from zapwatch_changes where id = any ($1::bigint[]);

-- name: put_off_changes
-- Put off the routing of changes.
update zapwatch_changes c
set due_at = u.due_at
from unnest($1::bigint[], $2::timestamptz[]) as u (id, due_at)
where c.id = u.id;

-- name: release_held_changes
-- Make changes due now that were held by a maintenance window that has ended early.
update zapwatch_changes
set due_at = $1
where id in (
  select c.id
  from zapwatch_changes c
  left join zapwatch_channels z on z.channel_id = c.channel_id
  where c.due_at > $1 and zapwatch_quiet_until($1, c.tenant_id, c.channel_id, z.gateway_id) is null
  for update of c skip locked
);

-- name: find_older_changes
-- The unsettled messages with earlier changes of these channels to these destinations. Of those before the newest all but
-- the ones under way were made void in their turn, so a few suffice.
select distinct m.id
from unnest($1::uuid[], $2::uuid[], $3::text[]) as u (channel_id, destination_id, event)
cross join lateral (
  select d.message_id
  from zapwatch_decisions d
  where d.channel_id = u.channel_id and d.destination_id = u.destination_id and d.event = u.event and d.is_sent
  order by d.id desc
  limit 5
) d
join zapwatch_messages m on m.id = d.message_id and m.settled_at is null;

-- name: supersede_changes
-- Withdraw changes that newer ones follow from these messages, unless they are under way or were tried: the facts are the
-- same in each try. A message of nothing else is void.
with waiting as (
  select id, facts is not null as was_tried
  from zapwatch_messages
  where id = any ($1::uuid[]) and settled_at is null and (claimed_until is null or claimed_until <= $2)
  order by id
  for no key update skip locked
), followed as (
  select d.id, d.message_id, w.was_tried
  from waiting w
  join zapwatch_decisions d on d.message_id = w.id and d.is_sent
  where exists (
    select
    from zapwatch_decisions n
    where n.channel_id = d.channel_id and n.destination_id = d.destination_id and n.event = d.event and n.is_sent
      and n.id > d.id
  )
), void as (
  select distinct f.message_id
  from followed f
  where not exists (
    select from zapwatch_decisions d
    where d.message_id = f.message_id and d.is_sent and d.id not in (select id from followed)
  )
), taken as (
  update zapwatch_decisions d
  set is_sent = false, why = $3
  from followed f
  where d.id = f.id and (not f.was_tried or f.message_id in (select message_id from void))
)
update zapwatch_messages m
set settled_at = $2, outcome = 'void', claimed_until = null
from void v
where m.id = v.message_id;
