"""The management API: routes for programs."""
