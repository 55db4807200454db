-- name: unadopted_channels
-- The next channels, in the order of ids, that we lack although an application made them and didn't delete them.
select n.id, n.tenant_id, n.provider::text as provider, n.credentials::text as credentials
from notification_channels n
left join zapwatch_channels c on c.channel_id = n.id
left join zapwatch_states s on s.channel_id = n.id
where (c.channel_id is null or s.channel_id is null) and n.id > $1
  and n.tenant_id is not null and n.deleted_at is null and n.provider::text = any($2::text[])
order by n.id
limit $3;

-- name: adopt_gateways
-- The gateways at these addresses, made when unknown.
insert into zapwatch_gateways (provider, base_url, version_due_at)
select g.provider, g.base_url, case when g.base_url <> '' then now() end
from unnest($1::text[], $2::text[]) as g (provider, base_url)
on conflict (provider, base_url) do update set name = zapwatch_gateways.name
returning id, provider, base_url;

-- name: adopt_channels
-- Register found channels; one whose instance is taken is skipped, and its id is not returned.
insert into zapwatch_channels (channel_id, tenant_id, gateway_id, provider, instance, api_key, put_by)
select u.*, 'operator'
from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::bytea[]) as u
on conflict do nothing
returning channel_id;

-- name: adopt_states
-- Write the states of found channels: they have been open before, and their deadlines and probes are due now.
insert into zapwatch_states (channel_id, tenant_id, memory, due_at, probe_due_at)
select c.channel_id, c.tenant_id, '{"has_been_open": true}', now(),
  case when g.base_url <> '' and c.instance is not null and coalesce(c.api_key, g.api_key) is not null then now() end
from zapwatch_channels c left join zapwatch_gateways g on g.id = c.gateway_id
where c.channel_id = any($1::uuid[])
on conflict do nothing;
