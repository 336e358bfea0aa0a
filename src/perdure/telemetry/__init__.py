"""What perdure tells of itself: counters and metrics, spans, and logs."""
