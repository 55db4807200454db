-- name: read_reconnect_targets
-- The channels of reconnect links, with their status, their incidents, and the time of the QR that is shown.
select w.channel_id, w.incident_id, c.tenant_id, coalesce(c.name, n.profile_name, c.instance) as name,
  t.name as tenant, t.locale::text as locale, t.time_zone, c.provider, s.state, s.reason,
  c.paused_at is not null or not n.is_active as paused, i.started_at, i.resolved_at,
  case when q.sealed is not null and q.expires_at > now() then q.issued_at end as shown_at
from unnest($1::uuid[], $2::uuid[]) as w (channel_id, incident_id)
join zapwatch_states s on s.channel_id = w.channel_id
join zapwatch_channels c on c.channel_id = w.channel_id
join notification_channels n on n.id = w.channel_id
join whatsapp_connection_incidents i on i.id = w.incident_id and i.channel_id = w.channel_id
left join tenants t on t.id = c.tenant_id
left join zapwatch_qrs q on q.channel_id = w.channel_id
where not c.removed and n.deleted_at is null;
