"""Programs that were written for other hosts, served by perdure: each kind has a package here."""
