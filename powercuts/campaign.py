"""A campaign: many lives, each cut in many places; some of what is found lives on and is cut again."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

from powercuts import store_sizes
from powercuts.checks import Promises, examine
from powercuts.disk import Disk, Platter
from powercuts.ledger import Submission
from powercuts.lifetime import Life

GENERATIONS = 3
GOING_ON = 1 / 3  # the share of cuts after which a new engine is brought to rest


@dataclass
class Tally:
    """What was done and found, of one seed or of many."""

    seeds: int = 0
    cuts: int = 0
    phases: Counter[str] = field(default_factory=Counter)
    generations: Counter[int] = field(default_factory=Counter)
    operations: int = 0
    commits: int = 0
    acknowledged: int = 0
    went_on: int = 0
    cuts_with_loss: int = 0
    lost_commits: int = 0
    lost_orders: int = 0
    corruptions: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        for name, value in vars(other).items():
            mine = getattr(self, name)
            if isinstance(mine, Counter):
                mine.update(value)
            elif isinstance(mine, list):
                mine.extend(value)
            else:
                setattr(self, name, mine + value)


def run_seed(seed: int, cuts: int, *, careless: bool = False, lies: bool = False) -> Tally:
    """One seed: its lives, and about this many cuts."""
    tally = Tally(seeds=1)
    chance = Random(seed)
    life = Life(
        seed, store_sizes.drawn(chance), turns=chance.choice((3, 15, 40)), careless=careless, lies=lies
    )
    _cut_everywhere(life, (), chance, cuts, 1, tally)
    return tally


def _cut_everywhere(
    life: Life, earlier: Sequence[Submission], chance: Random, cuts: int, generation: int, tally: Tally
) -> None:
    """Live, cut in many places, examine each, and let some of what is found live on."""
    life.live()
    tally.operations += len(life.disk.log)
    tally.commits += len(life.ledger.commits) - 1
    tally.acknowledged += sum(1 for _ in life.ledger.acknowledged(len(life.disk.log)))
    own = cuts if generation == GENERATIONS else max(cuts * 3 // 5, 1)
    heirs = {chance.randrange(own) for _ in range(1 if generation == GENERATIONS - 1 else 2)}
    platter, position = Platter(life.disk.found), 0
    for number, at in enumerate(_places(life.disk, own, chance)):
        platter.take(life.disk.log[position:at])
        position = at
        under_way = life.disk.log[at] if at < len(life.disk.log) else None
        image = platter.cut(chance, under_way)
        promises = Promises.of(life, at, earlier)
        finding = examine(life, image, promises, goes_on=chance.random() < GOING_ON)
        phase = _phase(life.disk, at)
        tally.cuts += 1
        tally.phases[phase] += 1
        tally.generations[generation] += 1
        tally.went_on += finding.went_on
        tally.lost_commits += finding.lost_commits
        tally.lost_orders += finding.lost_orders
        tally.cuts_with_loss += bool(finding.lost_commits or finding.lost_orders)
        tally.corruptions += any(p.startswith("corrupt") for p in finding.problems)
        where = f"seed {life.seed} generation {generation} cut {at} ({phase})"
        tally.problems += [f"{where}: {problem}" for problem in finding.problems]
        if number in heirs and generation < GENERATIONS and not finding.problems:
            heir = Life(
                life.seed * 100 + number,
                life.tuning,
                found=image,
                repeated=promises.unanswered(),
                begins_at=life.clock.now(),
                turns=chance.choice((0, 2, 8)),
            )
            share = max((cuts - own) // len(heirs), 1)
            _cut_everywhere(heir, promises.orders, chance, share, generation + 1, tally)


def _places(disk: Disk, count: int, chance: Random) -> list[int]:
    """Where to cut: half anywhere, half in a phase chosen first, so that short phases are not missed."""
    ends = [start for start, _ in disk.phases[1:]] + [len(disk.log)]
    ranges: dict[str, list[tuple[int, int]]] = {}
    for (start, name), end in zip(disk.phases, ends, strict=True):
        if end > start:
            ranges.setdefault(name, []).append((start, end))
    places = []
    for _ in range(count):
        if chance.random() < 0.5 or not ranges:
            places.append(chance.randint(0, len(disk.log)))
        else:
            start, end = chance.choice(ranges[chance.choice(sorted(ranges))])
            places.append(chance.randint(start, end))
    return sorted(places)


def _phase(disk: Disk, at: int) -> str:
    return disk.phases[bisect_right([start for start, _ in disk.phases], at) - 1][1]


def run_seeds(
    first: int, cuts: int, *, each: int = 25, careless: bool = False, lies: bool = False
) -> Iterator[Tally]:
    """Seeds from `first` on, until this many cuts are made; a tally for each."""
    done = 0
    while done < cuts:
        tally = run_seed(first, min(each, cuts - done), careless=careless, lies=lies)
        done += tally.cuts
        first += 1
        yield tally
