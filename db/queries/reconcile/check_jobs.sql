-- name: start_check
-- Begin a check of all channels that are probed, of a tenant's, of a gateway's, or of one; nothing when such a one runs.
insert into zapwatch_checks (tenant_id, channel_id, gateway_id, total, started_at)
select $1::uuid, $2::uuid, $3::uuid, count(*), $4::timestamptz
from zapwatch_states
where probe_due_at is not null and ($1::uuid is null or tenant_id = $1)
  and ($2::uuid is null or channel_id = $2) and ($3::uuid is null or gateway_id = $3)
on conflict do nothing
returning id, tenant_id, channel_id, gateway_id, total, done, started_at, finished_at;

-- name: running_check
-- The check of the same channels that runs.
select id, tenant_id, channel_id, gateway_id, total, done, started_at, finished_at
from zapwatch_checks
where finished_at is null and tenant_id is not distinct from $1 and channel_id is not distinct from $2
  and gateway_id is not distinct from $3;

-- name: read_check
-- A check; that of another tenant is not seen.
select id, tenant_id, channel_id, gateway_id, total, done, started_at, finished_at
from zapwatch_checks
where id = $1 and ($2::uuid is null or tenant_id = $2);

-- name: lock_check
-- A check that is to go on, held until the end of the transaction.
select id, tenant_id, channel_id, gateway_id, total, after, started_at
from zapwatch_checks
where finished_at is null and due_at <= $1
order by due_at
limit 1
for update skip locked;

-- name: make_page_due
-- Make the probes of a check's next channels due now that were not probed since it began; the last one's id.
with page as (
  select channel_id
  from zapwatch_states
  where probe_due_at > $1 and (probed_at is null or probed_at < $2)
    and probe_claimed_until is distinct from probe_due_at
    and ($3::uuid is null or tenant_id = $3) and ($4::uuid is null or channel_id = $4)
    and ($5::uuid is null or gateway_id = $5) and ($6::uuid is null or channel_id > $6)
  order by channel_id
  limit $7
  for no key update skip locked
), made as (
  update zapwatch_states s set probe_due_at = $1 from page where s.channel_id = page.channel_id
)
select count(*) as channels, (array_agg(channel_id order by channel_id desc))[1] as last from page;

-- name: count_unprobed
-- How many channels of a check are still to be probed; those that were put off can't be, nor while their gateway is down.
select count(*)
from zapwatch_states s
where probe_due_at is not null and (probed_at is null or probed_at < $1)
  and probe_claimed_until is distinct from probe_due_at
  and ($2::uuid is null or tenant_id = $2) and ($3::uuid is null or channel_id = $3)
  and ($4::uuid is null or gateway_id = $4)
  and not exists (select from zapwatch_gateways g where g.id = s.gateway_id and g.try_at is not null);

-- name: continue_check
-- Note how far a check has come, and when it goes on.
update zapwatch_checks set after = $2, due_at = $3 where id = $1;

-- name: finish_check
-- End a check.
update zapwatch_checks set finished_at = $2, done = greatest(total - $3, 0) where id = $1;

-- name: prune_checks
-- Forget checks that ended before this time.
delete from zapwatch_checks where finished_at < $1;
