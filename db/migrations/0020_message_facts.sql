-- What a message says stays the same over all its tries, so what it goes by is kept with it.

alter table zapwatch_messages add column if not exists facts jsonb;
comment on column zapwatch_messages.facts is
  'names, reasons, times and language as they were at the first try; no link, for whoever has one may use it; null: not tried yet';
