-- Which channels are evidence of their gateway's trouble, and from when on the opening of its incident may be told.

alter table zapwatch_alerts
  add column if not exists not_before timestamptz;
comment on column zapwatch_alerts.not_before is
  'of the opening of a gateway''s incident: the end of its time without a message, which the end of a maintenance window keeps';

create or replace function zapwatch_witness_tenant(p_gateway_id uuid) returns uuid
language sql stable set search_path = pg_catalog, public, pg_temp as $$
  select case when c.by_operator then null else c.tenant_id end
  from (
    select tenant_id, put_by is distinct from 'tenant' as by_operator, created_at, channel_id
    from zapwatch_channels
    where gateway_id = p_gateway_id and not removed and paused_at is null
  ) c
  order by c.by_operator desc, c.created_at, c.channel_id
  limit 1
$$;
comment on function zapwatch_witness_tenant(uuid) is
  'zapwatch: whose channels are evidence of a gateway''s trouble: null: those that operators put there; else, where none did, '
  'those of the tenant that came first: what another tenant adds later takes nothing away';
select zapwatch_close_to_others('function zapwatch_witness_tenant(uuid)');
