"""python -m examples.claims.services.post"""

from examples.claims.services.post.service import make
from examples.claims.services.serving import serve

serve("post", 7084, make)
