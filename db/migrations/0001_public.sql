-- The roles, the helper functions and the tables that Zapwatch shares with the applications beside it.
--
-- A database that lacks the tables gets them. One that has them is adopted: what is missing is added, checks are
-- widened, and nothing of it is dropped, rewritten or put under row security. Running the file twice changes nothing.
-- Whatever has to be decided by a person ends the migration with an exception that says what to do.

do $do$
declare
  v_missing text;
begin
  select string_agg(format('CREATE ROLE %I NOLOGIN;', wanted.name), ' ' order by wanted.name) into v_missing
  from (values ('authenticated'), ('service_role')) as wanted (name)
  where not exists (select from pg_roles where rolname = wanted.name);
  if v_missing is null then
    return;
  end if;
  execute v_missing;
exception
  when insufficient_privilege then
    raise exception 'roles are missing, and % may not create them. A superuser must run once: %', current_user, v_missing
      using errcode = 'insufficient_privilege';
  when duplicate_object or unique_violation then
    null;  -- roles belong to the whole server: a migration of another database was quicker
end $do$;

do $do$
begin
  if to_regnamespace('auth') is null then
    begin
      create schema auth;
    exception when insufficient_privilege then
      raise exception 'the schema auth is missing, and % may not create it. A superuser must run once: %', current_user,
        format('CREATE SCHEMA auth AUTHORIZATION %I;', current_user) using errcode = 'insufficient_privilege';
    end;
    grant usage on schema auth to authenticated, service_role;
  end if;

  if to_regprocedure('auth.uid()') is null then
    create function auth.uid() returns uuid language sql stable as $body$
      select coalesce(
        nullif(current_setting('request.jwt.claim.sub', true), ''),
        nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
      )::uuid
    $body$;
    comment on function auth.uid() is 'zapwatch: the user of the request, by its JWT';
  end if;

  -- One that can be called without arguments is the other application's answer, whatever its defaults.
  if not exists (
    select from pg_proc
    where proname = 'is_saas_admin' and pronamespace = 'public'::regnamespace and pronargs = pronargdefaults
  ) then
    create function public.is_saas_admin() returns boolean language sql stable as $body$
      select coalesce('saas_admin' in (claims ->> 'role', claims -> 'app_metadata' ->> 'role'), false)
      from (select nullif(current_setting('request.jwt.claims', true), '')::jsonb as claims) as request
    $body$;
    comment on function public.is_saas_admin() is
      'zapwatch: true when the JWT''s role or app_metadata.role is saas_admin (users can write neither)';
  end if;

  if to_regprocedure('public.set_updated_at()') is null then
    create function public.set_updated_at() returns trigger language plpgsql as $body$
    begin
      new.updated_at := now();
      return new;
    end $body$;
    comment on function public.set_updated_at() is 'zapwatch: trigger function, stamps updated_at';
  end if;
end $do$;

-- plpgsql, because its body may name a table that is made further down.
create or replace function zapwatch_member_tenants() returns setof uuid
language plpgsql stable security definer set search_path = pg_catalog, public, pg_temp as $$
begin
  return query
    select m.tenant_id from tenant_members m where m.user_id = auth.uid() and m.status::text = 'active';
end $$;
comment on function zapwatch_member_tenants() is 'zapwatch: the tenants in which the user of the request is an active member';
revoke all on function zapwatch_member_tenants() from public;
grant execute on function zapwatch_member_tenants() to authenticated, service_role;

create or replace function zapwatch_close_to_others(p_object text) returns void
language plpgsql set search_path = pg_catalog, public, pg_temp as $$
declare
  v_role text;
begin
  -- Supabase grants everything new in `public` to these by default.
  for v_role in
    select quote_ident(rolname) from pg_roles where rolname in ('anon', 'authenticated', 'service_role')
    union all select 'public'
  loop
    execute format('revoke all on %s from %s', p_object, v_role);
  end loop;
end $$;
comment on function zapwatch_close_to_others(text) is 'zapwatch: takes a table or function of ours from every role but its owner';
select zapwatch_close_to_others('function zapwatch_close_to_others(text)');

create or replace function zapwatch_widen_check(p_table regclass, p_column name, p_values text[]) returns void
language plpgsql set search_path = pg_catalog, public, pg_temp as $$
declare
  v_type regtype;
  v_kind "char";
  v_number smallint;
  v_value text;
  v_refused text[];
  v_check record;
begin
  select a.atttypid, t.typtype, a.attnum into strict v_type, v_kind, v_number
  from pg_attribute a join pg_type t on t.oid = a.atttypid
  where a.attrelid = p_table and a.attname = p_column and not a.attisdropped;

  if v_kind = 'e' then
    for v_value in
      select given.value from unnest(p_values) with ordinality as given (value, place)
      where not exists (select from pg_enum e where e.enumtypid = v_type and e.enumlabel = given.value)
      order by given.place
    loop
      execute format('alter type %s add value if not exists %L', v_type, v_value);
    end loop;
    -- Our statements write text; an explicit cast in each of them would need to know this type's name.
    if not exists (select from pg_cast where castsource = 'text'::regtype and casttarget = v_type) then
      execute format('create cast (text as %s) with inout as assignment', v_type);
    end if;
    return;
  end if;

  if v_kind = 'd' then
    foreach v_value in array p_values loop
      begin
        execute format('select cast(%L as %s)', v_value, v_type);
      exception when check_violation then
        raise exception 'column %.% has the domain %, which refuses ''%''. Widen the domain''s check, then migrate again',
          p_table, p_column, v_type, v_value using errcode = 'check_violation';
      end;
    end loop;
  end if;

  -- Only checks of this column alone: one over several columns is another application's rule about its own rows.
  for v_check in
    select c.conname, pg_get_expr(c.conbin, c.conrelid) as expression, c.connoinherit,
      obj_description(c.oid, 'pg_constraint') as comment
    from pg_constraint c
    where c.conrelid = p_table and c.contype = 'c' and c.conkey = array[v_number]
  loop
    execute format(
      'select array_agg(%1$I::text) from (select unnest($1)::%2$s as %1$I) as candidate where not coalesce((%3$s), true)',
      p_column, v_type, v_check.expression
    ) into v_refused using p_values;
    continue when v_refused is null;
    execute format(
      'alter table %1$s drop constraint %2$I, add constraint %2$I check ((%3$s) or (%4$I = any (array[%5$s]))) %6$s not valid',
      p_table, v_check.conname, v_check.expression, p_column,
      (select string_agg(quote_literal(value), ', ') from unnest(p_values) as value),
      case when v_check.connoinherit then 'no inherit' end
    );
    if v_check.comment is not null then
      execute format('comment on constraint %I on %s is %L', v_check.conname, p_table, v_check.comment);
    end if;
  end loop;
end $$;
comment on function zapwatch_widen_check(regclass, name, text[]) is
  'zapwatch: makes the column''s type and checks take these values too; leaves the new check NOT VALID';
select zapwatch_close_to_others('function zapwatch_widen_check(regclass, name, text[])');

-- An existing table that is something else under the same name is left alone, as a whole.
do $do$
declare
  v_problems text;
begin
  select string_agg(
    case
      when a.attnum is null then format('%s.%s is missing', wanted.table_name, wanted.column_name)
      else format('%s.%s is %s, not uuid', wanted.table_name, wanted.column_name, format_type(a.atttypid, a.atttypmod))
    end, '; ' order by wanted.table_name, wanted.column_name) into v_problems
  from (values
    ('tenants', 'id'),
    ('tenant_members', 'tenant_id'), ('tenant_members', 'user_id'),
    ('notification_channels', 'id'), ('notification_channels', 'tenant_id'),
    ('notifications', 'id'), ('notifications', 'tenant_id'),
    ('whatsapp_connection_incidents', 'id'), ('whatsapp_connection_incidents', 'tenant_id'),
    ('whatsapp_connection_incidents', 'channel_id')
  ) as wanted (table_name, column_name)
  left join pg_attribute a
    on a.attrelid = to_regclass('public.' || wanted.table_name) and a.attname = wanted.column_name and not a.attisdropped
  where to_regclass('public.' || wanted.table_name) is not null and a.atttypid is distinct from 'uuid'::regtype;
  if v_problems is not null then
    raise exception 'the tables of this database are not the ones that Zapwatch can work with: %', v_problems
      using hint = 'Give Zapwatch a database of its own (ZAPWATCH_DATABASE_URL).';
  end if;
end $do$;

do $do$
begin
  if to_regclass('public.tenants') is null then
    create table tenants (
      id uuid primary key default gen_random_uuid(),
      name text not null,
      locale text not null default 'pt-BR',
      time_zone text not null default 'America/Sao_Paulo',
      defaults jsonb not null default '{}',
      created_at timestamptz not null default now(),
      updated_at timestamptz not null default now()
    );
    comment on table tenants is 'Whose channels are watched; defaults: what their metadata starts from';
    create trigger trg_tenants_updated_at before update on tenants for each row execute function set_updated_at();
    perform zapwatch_close_to_others('tenants');
    grant select on tenants to authenticated;
    grant select, insert, update, delete on tenants to service_role;
    alter table tenants enable row level security;
    create policy tenants_select_members on tenants for select to authenticated
      using (id in (select zapwatch_member_tenants()) or (select is_saas_admin()));
    create policy tenants_service_role_all on tenants to service_role using (true) with check (true);
  else
    alter table tenants
      add column if not exists name text not null default '',
      add column if not exists locale text not null default 'pt-BR',
      add column if not exists time_zone text not null default 'America/Sao_Paulo',
      add column if not exists defaults jsonb not null default '{}',
      add column if not exists created_at timestamptz not null default now(),
      add column if not exists updated_at timestamptz not null default now();
  end if;
end $do$;

do $do$
begin
  if to_regclass('public.tenant_members') is null then
    create table tenant_members (
      tenant_id uuid not null references tenants (id) on delete cascade,
      user_id uuid not null,
      role text not null default 'member',
      status text not null default 'active',
      primary key (tenant_id, user_id)
    );
    comment on table tenant_members is 'Who may read what belongs to a tenant: members whose status is active';
    create index idx_tenant_members_user on tenant_members (user_id);
    perform zapwatch_close_to_others('tenant_members');
    grant select on tenant_members to authenticated;
    grant select, insert, update, delete on tenant_members to service_role;
    alter table tenant_members enable row level security;
    create policy tenant_members_select_members on tenant_members for select to authenticated
      using (tenant_id in (select zapwatch_member_tenants()) or (select is_saas_admin()));
    create policy tenant_members_service_role_all on tenant_members to service_role using (true) with check (true);
  else
    -- An application without the notion of a status has only active members.
    alter table tenant_members
      add column if not exists role text not null default 'member',
      add column if not exists status text not null default 'active';
  end if;
end $do$;

do $do$
begin
  if to_regclass('public.notification_channels') is null then
    create table notification_channels (
      id uuid primary key default gen_random_uuid(),
      tenant_id uuid not null references tenants (id) on delete cascade,
      provider text not null,
      connection_status text not null default 'unknown',
      last_health_check timestamptz,
      metadata jsonb not null default '{}',
      is_active boolean not null default true,
      deleted_at timestamptz,
      phone_number text,
      profile_name text,
      last_connected_at timestamptz,
      error_message text,
      auto_recovery_attempts int not null default 0,
      last_recovery_at timestamptz,
      credentials jsonb,
      created_at timestamptz not null default now(),
      updated_at timestamptz not null default now(),
      constraint notification_channels_provider_check check (provider in ('evolution_api', 'wapi', 'twilio', 'waha'))
    );
    comment on table notification_channels is
      'The channels; metadata: the tenant''s settings; credentials: read in adopted databases, never written';
    create index idx_notification_channels_tenant on notification_channels (tenant_id);
    create trigger trg_notification_channels_updated_at before update on notification_channels
      for each row execute function set_updated_at();
    perform zapwatch_close_to_others('notification_channels');
    grant select on notification_channels to authenticated;
    grant select, insert, update, delete on notification_channels to service_role;
    alter table notification_channels enable row level security;
    create policy notification_channels_select_members on notification_channels for select to authenticated
      using (tenant_id in (select zapwatch_member_tenants()) or (select is_saas_admin()));
    create policy notification_channels_service_role_all on notification_channels to service_role
      using (true) with check (true);
  else
    alter table notification_channels
      add column if not exists provider text not null default 'evolution_api',
      add column if not exists connection_status text not null default 'unknown',
      add column if not exists last_health_check timestamptz,
      add column if not exists metadata jsonb not null default '{}',
      add column if not exists is_active boolean not null default true,
      add column if not exists deleted_at timestamptz,
      add column if not exists phone_number text,
      add column if not exists profile_name text,
      add column if not exists last_connected_at timestamptz,
      add column if not exists error_message text,
      add column if not exists auto_recovery_attempts int not null default 0,
      add column if not exists last_recovery_at timestamptz,
      add column if not exists credentials jsonb,
      add column if not exists created_at timestamptz not null default now(),
      add column if not exists updated_at timestamptz not null default now();
    perform zapwatch_widen_check('notification_channels', 'provider', array['evolution_api', 'wapi', 'twilio', 'waha']);
    perform zapwatch_widen_check('notification_channels', 'connection_status',
      array['open', 'connecting', 'qr_pending', 'disconnected', 'error', 'unknown']);
  end if;
end $do$;

do $do$
begin
  if to_regclass('public.whatsapp_connection_incidents') is null then
    create table whatsapp_connection_incidents (
      id uuid primary key default gen_random_uuid(),
      tenant_id uuid not null references tenants (id) on delete cascade,
      channel_id uuid not null references notification_channels (id) on delete cascade,
      provider text not null,
      kind text not null,
      last_state text,
      details jsonb not null default '{}',
      started_at timestamptz not null default now(),
      opened_at timestamptz not null default now(),
      resolved_at timestamptz,
      duration_seconds int,
      notified_at timestamptz,
      notification_count int not null default 0,
      acknowledged_at timestamptz,
      created_at timestamptz not null default now(),
      updated_at timestamptz not null default now(),
      constraint whatsapp_connection_incidents_provider_check
        check (provider in ('evolution_api', 'wapi', 'twilio', 'waha')),
      constraint whatsapp_connection_incidents_kind_check
        check (kind in ('disconnected', 'error', 'qr_pending', 'connecting', 'unknown')),
      constraint whatsapp_connection_incidents_resolved_check check (resolved_at >= started_at),
      constraint whatsapp_connection_incidents_duration_check check (duration_seconds >= 0)
    );
    perform zapwatch_close_to_others('whatsapp_connection_incidents');
    alter table whatsapp_connection_incidents enable row level security;  -- its policies: 0003
  else
    -- opened_at stays null on rows that are there already: nobody knows when their grace ended.
    alter table whatsapp_connection_incidents
      add column if not exists provider text not null default 'evolution_api',
      add column if not exists kind text not null default 'unknown',
      add column if not exists last_state text,
      add column if not exists details jsonb not null default '{}',
      add column if not exists started_at timestamptz not null default now(),
      add column if not exists opened_at timestamptz,
      add column if not exists resolved_at timestamptz,
      add column if not exists duration_seconds int,
      add column if not exists notified_at timestamptz,
      add column if not exists notification_count int not null default 0,
      add column if not exists acknowledged_at timestamptz,
      add column if not exists created_at timestamptz not null default now(),
      add column if not exists updated_at timestamptz not null default now();
    perform zapwatch_widen_check('whatsapp_connection_incidents', 'provider',
      array['evolution_api', 'wapi', 'twilio', 'waha']);
    perform zapwatch_widen_check('whatsapp_connection_incidents', 'kind',
      array['disconnected', 'error', 'qr_pending', 'connecting', 'unknown']);
  end if;
end $do$;

do $do$
begin
  if to_regclass('public.notifications') is null then
    create table notifications (
      id uuid primary key default gen_random_uuid(),
      owner_id uuid,
      tenant_id uuid not null references tenants (id) on delete cascade,
      type text not null,
      ref_id uuid,
      payload jsonb,
      read_at timestamptz,
      created_at timestamptz not null default now(),
      constraint notifications_type_check check (type in (
        'system_alert', 'instance_disconnected', 'new_scheduling', 'new_patient', 'recurrence_alert', 'session_status',
        'inbound_message'))
    );
    comment on table notifications is 'What a tenant''s users see in their application; owner_id null: for every member';
    create index idx_notifications_tenant on notifications (tenant_id, created_at desc);
    perform zapwatch_close_to_others('notifications');
    grant select on notifications to authenticated;
    grant select, insert, update, delete on notifications to service_role;
    alter table notifications enable row level security;
    create policy notifications_select_members on notifications for select to authenticated
      using (
        (tenant_id in (select zapwatch_member_tenants()) and (owner_id is null or owner_id = (select auth.uid())))
        or (select is_saas_admin()));
    create policy notifications_service_role_all on notifications to service_role using (true) with check (true);
  else
    alter table notifications
      add column if not exists owner_id uuid,
      add column if not exists type text,
      add column if not exists ref_id uuid,
      add column if not exists payload jsonb,
      add column if not exists read_at timestamptz,
      add column if not exists created_at timestamptz not null default now();
    perform zapwatch_widen_check('notifications', 'type', array['system_alert', 'instance_disconnected']);
  end if;
end $do$;
