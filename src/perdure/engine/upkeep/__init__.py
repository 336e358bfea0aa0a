"""What keeps a hub healthy: retention, the watchdog, the crash file, verification."""
