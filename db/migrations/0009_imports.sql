-- Imports: a check of one gateway's channels tells how far the first look at them is.

alter table zapwatch_checks
  add column if not exists gateway_id uuid references zapwatch_gateways (id) on delete cascade;
comment on column zapwatch_checks.gateway_id is 'the one gateway whose channels are probed; null: those of all';

create unique index if not exists uq_zapwatch_checks_under_way on zapwatch_checks (
  coalesce(tenant_id, '00000000-0000-0000-0000-000000000000'),
  coalesce(channel_id, '00000000-0000-0000-0000-000000000000'),
  coalesce(gateway_id, '00000000-0000-0000-0000-000000000000')
) where finished_at is null;
drop index if exists uq_zapwatch_checks_running;  -- the new one serves all that it served
