"""The loop's thread, which takes, decides, commits and releases, and the callers that wait for it on other
threads.
"""
