-- Validates the checks that 0001 has widened. In a transaction of its own, because VALIDATE lets others read and write,
-- and the lock under which a check is replaced does not. A check that was NOT VALID before, and has rows against it,
-- stays so.

do $do$
declare
  v_check record;
begin
  for v_check in
    select c.conrelid::regclass as name, c.conname
    from (values
      ('notification_channels', 'provider', 'evolution_api%wapi%twilio%waha'),
      ('notification_channels', 'connection_status', 'open%connecting%qr_pending%disconnected%error%unknown'),
      ('whatsapp_connection_incidents', 'provider', 'evolution_api%wapi%twilio%waha'),
      ('whatsapp_connection_incidents', 'kind', 'disconnected%error%qr_pending%connecting%unknown'),
      ('notifications', 'type', 'system_alert%instance_disconnected')
    ) as widened (table_name, column_name, ours)
    join pg_attribute a on a.attrelid = to_regclass('public.' || widened.table_name) and a.attname = widened.column_name
    join pg_constraint c on c.conrelid = a.attrelid and c.contype = 'c' and c.conkey = array[a.attnum]
    where not c.convalidated and pg_get_expr(c.conbin, c.conrelid) like '% OR %' || widened.ours || '%'
  loop
    begin
      execute format('alter table %s validate constraint %I', v_check.name, v_check.conname);
    exception when check_violation then
      null;
    end;
  end loop;
end $do$;
