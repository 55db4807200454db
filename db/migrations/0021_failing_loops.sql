-- Background loops that fail, by process: a command of another process and other replicas read which ones.

create table if not exists zapwatch_failing_loops (
  process uuid not null,
  loop text not null,
  host text not null,
  failing_since timestamptz not null,
  seen_at timestamptz not null,
  error text not null,
  primary key (process, loop)
);
comment on table zapwatch_failing_loops is
  'Background loops without a good round for minutes. A good round deletes its row; a process that was killed leaves it';
comment on column zapwatch_failing_loops.process is 'made anew by each start of a process';
comment on column zapwatch_failing_loops.failing_since is 'when the first round failed after the last good one';
comment on column zapwatch_failing_loops.seen_at is 'when a round last failed; a row not seen for five minutes says nothing';
comment on column zapwatch_failing_loops.error is 'the type of the last error, without its message';

select zapwatch_close_to_others('zapwatch_failing_loops');
alter table zapwatch_failing_loops enable row level security, force row level security;
do $do$
begin
  if not exists (
    select from pg_policy where polrelid = 'zapwatch_failing_loops'::regclass and polname = 'zapwatch owner'
  ) then
    create policy "zapwatch owner" on zapwatch_failing_loops using (
      (select pg_has_role(current_user, relowner, 'usage') from pg_class where oid = 'zapwatch_failing_loops'::regclass)
      and (select zapwatch_tenant()) is null);
  end if;
end $do$;
