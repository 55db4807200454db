-- Sweeps: gateways where one call tells of all channels, or gives a hint.

alter table zapwatch_gateways
  add column if not exists sweeps boolean,
  add column if not exists sweep_due_at timestamptz not null default now();
comment on column zapwatch_gateways.sweeps is 'whether one call tells of all its channels; null: not known';
comment on column zapwatch_gateways.sweep_due_at is 'when to make that call, or to try whether it can be made';
create index if not exists idx_zapwatch_gateways_sweep on zapwatch_gateways (sweep_due_at);
