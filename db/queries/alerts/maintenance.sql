-- name: list_maintenance
-- One page of maintenance windows, the latest to begin first.
select id, tenant_id, channel_id, gateway_id, starts_at, ends_at, why, created_at, now() as now
from zapwatch_maintenance
where ($1::uuid is null or tenant_id = $1)
  and ($2::timestamptz is null or (starts_at, id) < ($2, $3::uuid))
order by starts_at desc, id desc
limit $4;

-- name: show_maintenance
-- One maintenance window, if it is this tenant's.
select id, tenant_id, channel_id, gateway_id, starts_at, ends_at, why, created_at, now() as now
from zapwatch_maintenance
where id = $1 and ($2::uuid is null or tenant_id = $2);

-- name: insert_maintenance
-- Write a maintenance window; a channel's has the channel's tenant, so that this tenant sees it.
insert into zapwatch_maintenance (tenant_id, channel_id, gateway_id, starts_at, ends_at, why)
values (coalesce($1, (select tenant_id from notification_channels where id = $2)), $2, $3, coalesce($4, now()), $5, $6)
returning id;

-- name: cancel_maintenance
-- Delete a window that has not begun.
delete from zapwatch_maintenance where id = $1 and starts_at >= now();

-- name: end_maintenance
-- End a window that runs; one that is over stays as it was.
update zapwatch_maintenance set ends_at = now() where id = $1 and starts_at < now() and ends_at > now();

-- name: gateway_exists
-- Whether there is such a gateway.
select exists (select from zapwatch_gateways where id = $1);
