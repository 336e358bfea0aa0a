"""Power cuts and failing disks: the real engine and the real SQLite store on a disk that forgets.

`disk.py` says which failures are modelled. `python -m powercuts --help` runs a campaign. Not shipped.
"""
