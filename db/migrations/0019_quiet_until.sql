-- Whether maintenance keeps something quiet, asked by all that decides whom to tell.

create or replace function zapwatch_quiet_until(p_at timestamptz, p_tenant uuid, p_channel uuid, p_gateway uuid)
returns timestamptz
language sql stable set search_path = pg_catalog, public as $$
  select max(ends_at)
  from public.zapwatch_maintenance
  where starts_at <= p_at and ends_at > p_at
    and (tenant_id is null or tenant_id = p_tenant)
    and (channel_id is null or channel_id = p_channel)
    and (gateway_id is null or gateway_id = p_gateway)
$$;
comment on function zapwatch_quiet_until(timestamptz, uuid, uuid, uuid) is
  'zapwatch: when the maintenance ends in which a channel or a gateway stands; null: it stands in none';
select zapwatch_close_to_others('function zapwatch_quiet_until(timestamptz, uuid, uuid, uuid)');
