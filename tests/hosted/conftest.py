"""Each test leaves the process as it was."""

from tests.hosted.isolation import taken_back

__all__ = ["taken_back"]
