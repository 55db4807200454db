"""What gateways have on file: instances, webhook registrations and subscriptions."""
