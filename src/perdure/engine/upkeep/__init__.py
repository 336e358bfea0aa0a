"""Upkeep of a hub: retention, the watchdog, the crash file, verification."""
