import sys
from simulation.drawing import plan_of
from simulation.world import World
from simulation.checks import Verdict
import time
t=time.perf_counter(); n=0
from collections import Counter
met=Counter(); codes=Counter()
a,b=int(sys.argv[1]),int(sys.argv[2])
ex={}
for seed in range(a,b):
    w=World(plan_of(seed), verbose=len(sys.argv)>3)
    w.run(); n+=w.steps
    if not w.ledger.problems: Verdict(w).reach()
    w.backend.dispose()
    for c in w.met.counts: met[c]+=1
    for p in w.ledger.problems[:1]:
        codes[p.code]+=1; ex.setdefault(p.code,[]).append((seed,str(p)))
el=time.perf_counter()-t
print(f"{(b-a)/el*60:.0f} seeds/min, {n} steps {n/(b-a):.0f}/seed")
for k,v in ex.items(): print(k, codes[k]); [print('   ',x[0],x[1][:700]) for x in v[:4]]
from simulation.sometimes import CASES
for c in CASES: print(f"{met[c]:5} {c}")
