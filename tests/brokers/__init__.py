"""Queue sources against the real brokers, started on loopback by the tests themselves."""
