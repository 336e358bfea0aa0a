"""The duties of a worker among others: membership, leases, requests for other owners."""
