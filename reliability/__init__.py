"""One command for all reliability tests: simulated runs, power cuts, kills, planted bugs."""
