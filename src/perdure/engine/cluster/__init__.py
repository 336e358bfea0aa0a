"""Several workers on one hub: membership, leases, requests to other owners."""
