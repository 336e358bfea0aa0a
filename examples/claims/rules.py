"""The insurer's rules: what is paid at once, what is refused, and what people decide. Pure functions of a case."""

from datetime import timedelta

from examples.claims.model import Case, Claim, Cover, Photo, Ruling

AT_ONCE = 7_500  # dollars that are paid without a person, if nothing is odd
TRUSTED = 0.25  # the highest fraud score of such a claim
FRAUD_LIMIT = 0.8  # a higher score refuses a claim
FOUR_EYES = 50_000  # dollars beyond which two people decide
VISIBLE = 0.005  # the share of a photo that damage covers at least

DOCUMENTS_WITHIN = timedelta(days=14)  # then a person decides with what there is
SECOND_LOOK_WITHIN = timedelta(days=30)
NEEDS_REPORT = ("Vehicle Theft",)


def cover_of(claim: Claim) -> Cover:
    """What the policy pays: the claim less the deductible, with remarks where the amounts do not fit the damage."""
    age = claim.happened.year - claim.vehicle.year
    is_slight = claim.severity.startswith(("Trivial", "Minor"))
    is_dear = claim.vehicle_amount > 30_000
    remarks = [
        (is_slight and is_dear, f"${claim.vehicle_amount:,} for {claim.severity.lower()}"),
        (age > 15 and is_dear, f"${claim.vehicle_amount:,} for a car of {age} years"),
        (claim.property_amount > claim.vehicle_amount, "more for other property than for the vehicle"),
    ]
    payable = max(0, claim.total - claim.deductible)
    return Cover(payable, tuple(text for holds, text in remarks if holds), _refusal(claim))


def what_is_missing(case: Case) -> tuple[str, ...]:
    """What the customer must send before anybody can decide, in words for the customer."""
    claim, photos = case.claim, case.opinion.photos
    wanted = [
        (claim.channel == "app" and not claim.photos, "a photo of the damage"),
        (bool(photos) and not any(map(is_usable, photos)), _another_photo(photos)),
        (
            claim.channel == "app" and claim.kind in NEEDS_REPORT and claim.police_report is None,
            "the police report",
        ),
    ]
    return () if case.opinion.cover.refusal else tuple(text for missing, text in wanted if missing)


def rule(case: Case) -> Ruling | None:
    """The ruling that needs no person, or None where people decide."""
    cover, fraud = case.opinion.cover, case.opinion.fraud
    if cover.refusal:
        return Ruling(verdict="deny", reason=cover.refusal)
    if fraud.score > FRAUD_LIMIT:
        return Ruling(verdict="deny", reason="; ".join(fraud.reasons))
    if cover.payable <= AT_ONCE and fraud.score <= TRUSTED and not oddities(case):
        return Ruling(verdict="approve", amount=cover.payable, reason="Your policy covers it.")
    return None


def oddities(case: Case) -> tuple[str, ...]:
    """What an adjuster should look at."""
    photos = case.opinion.photos
    return (
        *case.opinion.cover.remarks,
        *(f"a photo was seen before, in claim {photo.seen_in}" for photo in photos if photo.seen_in),
        *(f"a photo is {photo.problem}" for photo in photos if photo.problem),
        *(("no damage is visible on the photos",) if photos and not _shows_damage(photos) else ()),
        *(f"missing: {thing}" for thing in what_is_missing(case)),
    )


def in_short(case: Case) -> str:
    """The opinion in one line."""
    return f"fraud score {case.opinion.fraud.score:.2f}, worth ${case.opinion.cover.payable:,}"


def eyes(case: Case) -> int:
    """How many people must decide."""
    return 2 if case.opinion.cover.payable > FOUR_EYES else 1


def is_usable(photo: Photo) -> bool:
    return not photo.problem


def _refusal(claim: Claim) -> str:
    if claim.happened < claim.policy_bound:
        return (
            f"Your cover began on {_day(claim.policy_bound)}, and the accident was on {_day(claim.happened)}."
        )
    if claim.paid_to is not None and claim.happened > claim.paid_to:
        return f"Your cover ended on {_day(claim.paid_to)}, and the accident was on {_day(claim.happened)}."
    if claim.total <= claim.deductible:
        return f"The damage of ${claim.total:,} is not above your deductible of ${claim.deductible:,}."
    return ""


def _another_photo(photos: tuple[Photo, ...]) -> str:
    return f"another photo of the damage: the one you sent is {photos[-1].problem}" if photos else ""


def _shows_damage(photos: tuple[Photo, ...]) -> bool:
    return any(photo.damage >= VISIBLE for photo in photos)


def _day(day: object) -> str:
    return f"{day:%d %B %Y}".removeprefix("0")
