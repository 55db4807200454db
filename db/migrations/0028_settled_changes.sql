-- Changes of open incidents that are decided are forgotten soon; there may be very many of them.

create index if not exists idx_zapwatch_alerts_settled_changes on zapwatch_alerts (settled_at)
  where kind = 'changed' and settled_at is not null;
