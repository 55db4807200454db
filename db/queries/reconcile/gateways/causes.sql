-- name: causes_of
-- Which incidents of channels are caused by their gateway's, by their places: those that opened at most a minute before
-- it, while it is in trouble or settles after it, in a state that its cause explains. In a mass loss only the channels that
-- left with the others.
select u.place::int as place, i.id
from unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::text[]) with ordinality
  as u (channel_id, opened_at, state, reason, place)
join zapwatch_channels c using (channel_id)
join zapwatch_gateways g on g.id = c.gateway_id
join lateral (
  select id, cause, opened_at, resolved_at
  from zapwatch_gateway_incidents
  where gateway_id = g.id
  order by started_at desc
  limit 1
) i on u.opened_at >= i.opened_at - interval '1 minute'
where (i.resolved_at is null and g.calm_since is null or i.cause <> 'mass_loss' and g.settles_until > $5)
  and zapwatch_gateway_explains(i.cause, u.state, u.reason)
  and (i.cause <> 'mass_loss' or exists (
    select from zapwatch_affected_channels a where a.gateway_incident_id = i.id and a.channel_id = u.channel_id
  ))
  and not exists (
    -- Opened by another application.
    select
    from zapwatch_events e
    where e.channel_id = u.channel_id and e.source = 'operator' and e.name = 'incident_opened'
      and u.opened_at in (e.received_at, e.last_received_at)
  );

-- name: attribute_causes
-- Note a gateway's incident as the cause of its channels' that opened at most a minute before it, as `causes_of` has it.
update whatsapp_connection_incidents w
set details = coalesce(w.details, '{}') || jsonb_build_object('cause', 'gateway', 'gateway_incident_id', i.id)
from zapwatch_gateway_incidents i
join zapwatch_channels c on c.gateway_id = i.gateway_id
join zapwatch_states s on s.channel_id = c.channel_id
where i.id = $1 and w.channel_id = c.channel_id and w.resolved_at is null
  and w.opened_at >= i.opened_at - interval '1 minute' and w.details ->> 'cause' is null
  and zapwatch_gateway_explains(i.cause, s.state, s.reason)
  and (i.cause <> 'mass_loss' or exists (
    select from zapwatch_affected_channels a where a.gateway_incident_id = i.id and a.channel_id = c.channel_id
  ))
  and not exists (
    select
    from zapwatch_events e
    where e.channel_id = c.channel_id and e.source = 'operator' and e.name = 'incident_opened'
      and w.opened_at in (e.received_at, e.last_received_at)
  );

-- name: drop_causes
-- Take the cause from the open incidents of these gateways' channels. Those that are locked are left: it is done again.
with caused as (
  select w.id
  from whatsapp_connection_incidents w
  join zapwatch_channels c using (channel_id)
  where c.gateway_id = any ($1::uuid[]) and w.resolved_at is null and w.details ->> 'cause' = 'gateway'
  for no key update of w skip locked
)
update whatsapp_connection_incidents w
set details = w.details - array['cause', 'gateway_incident_id']
from caused where w.id = caused.id;

-- name: drop_causes_of_moved
-- Take the cause from the open incidents of channels that were moved away from a gateway that is, or was since $1, in
-- trouble.
update whatsapp_connection_incidents w
set details = w.details - array['cause', 'gateway_incident_id']
from zapwatch_gateway_incidents i
join zapwatch_affected_channels a on a.gateway_incident_id = i.id
join zapwatch_channels c using (channel_id)
where (i.resolved_at is null or i.resolved_at > $1) and c.gateway_id <> i.gateway_id
  and w.channel_id = c.channel_id and w.resolved_at is null and w.details ->> 'gateway_incident_id' = i.id::text;
