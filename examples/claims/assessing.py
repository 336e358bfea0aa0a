"""What there is to know of a claim: the fraud score, the photos and the policy, all at the same time."""

import perdure as df
from examples.claims import album, judgement, rules
from examples.claims.connections import FRAUD_URL, Office
from examples.claims.model import Claim, Cover, FraudScore, Opinion, Photo
from examples.claims.retries import AWAY, UNTIL_DONE

functions = df.Blueprint()

KEY = df.Secret("CLAIMS_FRAUD_KEY", form="Bearer {}")  # history has its name


@functions.orchestrator
async def assess(context: df.OrchestrationContext, claim: Claim) -> Opinion:
    """Three opinions in parallel; the slowest decides how long it takes."""
    fraud, photos, cover = await context.task_all(
        context.spawn(score_fraud(context, claim)),
        context.call_activity(look_at_photos, claim),
        context.call_activity(check_policy, claim),
    )
    return Opinion(fraud, photos, cover)


async def score_fraud(context: df.OrchestrationContext, claim: Claim) -> FraudScore:
    """Ask fraud scoring. Without one, or if it rejects the question, the points card answers, and is unsure."""
    if not FRAUD_URL:
        return await context.call_activity(count_points, claim)
    answer = await context.call_http(
        "POST",
        f"{FRAUD_URL}/score",
        judgement.traits_of(claim),
        headers={"Authorization": KEY},
        timeout=10,
        retry=UNTIL_DONE,
        retry_statuses=AWAY,
    )
    if answer.ok:
        return judgement.score_in(answer)
    points = await context.call_activity(count_points, claim)
    return FraudScore(points.score, points.reasons, confidence=0.0)


@functions.activity(retry=UNTIL_DONE)
async def count_points(claim: Claim) -> FraudScore:
    return judgement.score(claim)


@functions.activity(retry=UNTIL_DONE)
async def look_at_photos(claim: Claim, office: Office) -> tuple[Photo, ...]:
    if not claim.photos:
        return ()
    photos = await office.photos.look_at(claim)
    album.write(claim.claim_id, photos)
    return photos


@functions.activity(retry=UNTIL_DONE)
async def check_policy(claim: Claim) -> Cover:
    return rules.cover_of(claim)
