"""Planted bugs: each patch breaks the engine in one way that history teaches, and something must turn red."""
