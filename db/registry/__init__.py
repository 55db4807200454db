"""Registration of tenants, channels, gateways and tokens."""
