"""Operations on alerting: destinations, deliveries, maintenance and notifications."""
