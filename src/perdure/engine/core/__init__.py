"""From messages to one batch: no thread, no clock, no store."""
