-- name: scope_tenant
-- Narrow row security to one tenant until the end of the transaction.
select set_config('zapwatch.tenant_id', $1, true);
