"""The thread that takes, decides, commits and releases, and what waits for it on other threads."""
