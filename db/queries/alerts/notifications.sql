-- name: list_notifications
-- One page of a tenant's notifications, newest first; those of other applications are left out. The table may be another
-- application's, with types of its own.
select id, tenant_id, owner_id, type::text as type, ref_id::text as ref_id, payload::text as payload,
  read_at::timestamptz as read_at, created_at::timestamptz as created_at
from notifications
where ($1::uuid is null or tenant_id = $1) and type::text = any($2::text[])
  and (not $3::boolean or read_at is null)
  and ($4::timestamptz is null or (created_at::timestamptz, id) < ($4, $5::uuid))
order by created_at::timestamptz desc, id desc
limit $6;

-- name: read_notification
-- Note that a notification was read; the first time counts.
update notifications set read_at = coalesce(read_at, now())
where id = $1 and ($2::uuid is null or tenant_id = $2) and type::text = any($3::text[])
returning id, tenant_id, owner_id, type::text as type, ref_id::text as ref_id, payload::text as payload,
  read_at::timestamptz as read_at, created_at::timestamptz as created_at;
