"""One command for every test of what perdure promises: simulated lives, power cuts, kills, planted bugs."""
