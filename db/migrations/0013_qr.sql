-- QRs that gateways show, sealed, for as long as they can be scanned; and which keys of channels came from a list,
-- and the secret that webhooks carry where Zapwatch set their address.

create table if not exists zapwatch_qrs (
  channel_id uuid primary key references zapwatch_states (channel_id) on delete cascade,
  tenant_id uuid not null,
  sealed bytea,
  issued_at timestamptz,
  expires_at timestamptz,
  asked_at timestamptz
);
comment on table zapwatch_qrs is 'The QR that a channel''s gateway shows, wiped when it can''t be scanned any more';
comment on column zapwatch_qrs.sealed is 'sealed; associated data: qr:<channel_id>; null: none';
comment on column zapwatch_qrs.issued_at is 'when the gateway made it, by our clock as far as that is known';
comment on column zapwatch_qrs.asked_at is 'when the gateway was last asked for one: it counts them';

select zapwatch_close_to_others('zapwatch_qrs');
alter table zapwatch_qrs enable row level security, force row level security;
do $do$
begin
  if not exists (
    select from pg_policy where polrelid = 'zapwatch_qrs'::regclass and polname = 'zapwatch owner'
  ) then
    create policy "zapwatch owner" on zapwatch_qrs using (
      (select pg_has_role(current_user, relowner, 'usage') from pg_class where oid = 'zapwatch_qrs'::regclass)
      and ((select zapwatch_tenant()) is null or tenant_id = (select zapwatch_tenant())));
  end if;
end $do$;

do $do$
begin
  if to_regtype('zapwatch_new_qr') is null then
    create type zapwatch_new_qr as (
      channel_id uuid, tenant_id uuid, sealed bytea, issued_at timestamptz, expires_at timestamptz
    );
  end if;
end $do$;
comment on type zapwatch_new_qr is 'zapwatch: a row of zapwatch_qrs as db/apply passes it';

alter table zapwatch_channels add column if not exists listed_key_hash bytea;
comment on column zapwatch_channels.listed_key_hash is
  'sha256 of the key that its gateway''s list named for it; api_key is another one when somebody gave it';

alter table zapwatch_gateways add column if not exists webhook_secret bytea;
comment on column zapwatch_gateways.webhook_secret is
  'sealed; associated data: webhook_secret:<id>; the header that is set beside webhook_token where a gateway can send one';
alter table zapwatch_tokens add column if not exists secret_hash bytea check (length(secret_hash) = 32);
comment on column zapwatch_tokens.secret_hash is
  'sha256 of the secret that webhooks to this token carry in a header; null: they carry none';
