-- name: list_gateways
-- One page of gateways in the order of ids; those without an address only hold unconfigured channels.
select g.id, g.provider, g.base_url, g.name, g.version, g.state, g.since,
  i.id as incident_id, i.started_at as incident_started_at, i.affected as incident_affected, i.cause as incident_cause,
  i.acknowledged_at as incident_acknowledged_at
from zapwatch_gateways g
left join zapwatch_gateway_incidents i on i.gateway_id = g.id and i.resolved_at is null
where g.base_url <> '' and ($1::uuid is null or g.id > $1)
order by g.id
limit $2;

-- name: show_gateway
-- One gateway.
select g.id, g.provider, g.base_url, g.name, g.version, g.state, g.since,
  i.id as incident_id, i.started_at as incident_started_at, i.affected as incident_affected, i.cause as incident_cause,
  i.acknowledged_at as incident_acknowledged_at
from zapwatch_gateways g
left join zapwatch_gateway_incidents i on i.gateway_id = g.id and i.resolved_at is null
where g.id = $1 and g.base_url <> '';

-- name: count_gateway_channels
-- How many channels of these gateways are in which state, and how many of these were never connected.
select c.gateway_id, split_part(s.state, '/', 1) as state, count(*) as channels,
  count(*) filter (where not s.memory @> '{"has_been_open": true}') as never_connected
from zapwatch_channels c
join notification_channels n on n.id = c.channel_id
join zapwatch_states s on s.channel_id = c.channel_id
where c.gateway_id = any($1::uuid[]) and not c.removed and n.deleted_at is null
group by 1, 2;
