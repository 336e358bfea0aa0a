"""python -m examples.claims.services.photos"""

from examples.claims.services.photos.service import make
from examples.claims.services.serving import serve

serve("photo assessment", 7082, make)
