-- name: count_channels
-- How many channels there are by provider and state, and how many of them have an open incident, for the metrics.
select c.provider, split_part(s.state, '/', 1) as state, count(*) as channels, count(i.channel_id) as incidents
from zapwatch_states s
join zapwatch_channels c on c.channel_id = s.channel_id
join notification_channels n on n.id = c.channel_id
left join whatsapp_connection_incidents i on i.channel_id = c.channel_id and i.resolved_at is null
where not c.removed and n.deleted_at is null
group by 1, 2;

-- name: oldest_due
-- The longest due of the probes and of the deadlines that are due; reads one channel of each gateway that isn't down.
select
  (select min(w.probe_due_at)
   from zapwatch_gateways g
   cross join lateral (
     select s.probe_due_at
     from zapwatch_states s
     where s.gateway_id = g.id and s.probe_due_at <= $1
     order by s.probe_due_at
     limit 1
   ) w
   where g.try_at is null) as probe,
  (select min(due_at) from zapwatch_states where due_at <= $1) as deadline;
