"""What operators register: tenants, channels, gateways and tokens."""
