"""python -m examples.claims.services.fraud"""

from examples.claims.services.fraud.service import make
from examples.claims.services.serving import serve

serve("fraud scoring", 7081, make)
