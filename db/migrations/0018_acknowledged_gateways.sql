-- Incidents of gateways that somebody has seen: nobody is reminded of them any more.

alter table zapwatch_gateway_incidents add column if not exists acknowledged_at timestamptz;
comment on column zapwatch_gateway_incidents.acknowledged_at is 'when an operator first said so; ends the reminders';
