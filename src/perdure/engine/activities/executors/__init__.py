"""Executors: activities in other processes, on other threads or on other machines."""
