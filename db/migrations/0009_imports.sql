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

-- Until when a channel is paid for, where its gateway tells.
alter table zapwatch_channels
  add column if not exists expires_at timestamptz,
  add column if not exists payment_status text,
  add column if not exists subscription_due_at timestamptz not null default now();
comment on column zapwatch_channels.expires_at is 'until when the gateway says that it is paid for; null: it does not say';
comment on column zapwatch_channels.payment_status is 'the gateway''s word for whether it is paid for';
comment on column zapwatch_channels.subscription_due_at is 'when the gateway is asked for both, if its kind tells';
create index if not exists idx_zapwatch_channels_subscription on zapwatch_channels (provider, subscription_due_at)
  where not removed;
