"""Programs that use perdure, from the smallest up: `approval`, `walkthrough`, `claims`."""
