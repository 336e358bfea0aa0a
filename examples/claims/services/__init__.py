"""The services around the claims process, each a process of its own: fraud scoring, photos, bank and post.

README.md has their contracts. `switches` makes one slow, wrong or absent, `serving` starts one, `pages` shows it.
"""

import os

# The matrices of the services are small. Threads of numpy would only wait for each other, on a busy machine for long.
for _library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")
