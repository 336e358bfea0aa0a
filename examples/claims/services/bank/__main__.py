"""python -m examples.claims.services.bank"""

from examples.claims.services.bank.service import make
from examples.claims.services.serving import serve

serve("bank", 7083, make)
