"""Operations on what is told: destinations, deliveries, maintenance and notifications."""
