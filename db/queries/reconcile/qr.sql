-- name: keep_qrs
-- Keep the QRs that gateways show, of each channel the newest.
insert into zapwatch_qrs as q (channel_id, tenant_id, sealed, issued_at, expires_at)
select u.channel_id, u.tenant_id, u.sealed, u.issued_at, u.expires_at from unnest($1::zapwatch_new_qr[]) as u
on conflict (channel_id) do update
set sealed = excluded.sealed, issued_at = excluded.issued_at, expires_at = excluded.expires_at
where q.issued_at is null or q.issued_at <= excluded.issued_at;

-- name: wipe_qrs
-- Wipe the QRs of channels that no longer wait for a scan; the time of the last request to the gateway stays.
update zapwatch_qrs set sealed = null, expires_at = null where channel_id = any ($1::uuid[]) and sealed is not null;

-- name: forget_qrs
-- Delete QRs that can't be scanned any more, unless a request to the gateway was made after $2.
delete from zapwatch_qrs
where channel_id = any (array(
  select channel_id from zapwatch_qrs
  where (expires_at is null or expires_at <= $1) and (asked_at is null or asked_at <= $2)
  limit 1000
  for update skip locked
));

-- name: qr_target
-- The target for a channel's QR, the channel's status, and the QR that its gateway shows, if it still does.
select s.channel_id, s.version, coalesce(s.probe_due_at, now()) as due_at, c.gateway_id, c.provider,
  coalesce(g.base_url, '') as base_url, c.instance, c.api_key as channel_key, g.api_key as gateway_key, c.expires_at,
  c.paused_at is not null or not n.is_active as paused, s.state, s.reason, t.locale::text as locale,
  q.sealed, q.expires_at as scanned_until
from zapwatch_states s
join zapwatch_channels c using (channel_id)
join notification_channels n on n.id = c.channel_id
left join tenants t on t.id = c.tenant_id
left join zapwatch_gateways g on g.id = c.gateway_id
left join zapwatch_qrs q on q.channel_id = s.channel_id and q.sealed is not null and q.expires_at > $3
where s.channel_id = $1 and ($2::uuid is null or c.tenant_id = $2) and not c.removed and n.deleted_at is null;

-- name: claim_qr
-- Claim the next request for a channel's QR; nothing when the last was made after $3.
insert into zapwatch_qrs as q (channel_id, tenant_id, asked_at)
select s.channel_id, s.tenant_id, $2 from zapwatch_states s where s.channel_id = $1
on conflict (channel_id) do update set asked_at = excluded.asked_at
where q.asked_at is null or q.asked_at <= $3
returning q.channel_id;

-- name: qr_asked_at
-- When a channel's QR was last requested from its gateway.
select asked_at from zapwatch_qrs where channel_id = $1;

-- name: probe_now
-- Make a channel's probe due now, if it is probed at all.
update zapwatch_states set probe_due_at = least(probe_due_at, $2)
where channel_id = $1 and probe_due_at is not null;
