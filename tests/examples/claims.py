"""A claim of the walk-through and of the article: an ordinary one, and one that looks like fraud."""

CLAIM = {
    "claim_id": "C-1001",
    "amount": 2400,
    "car_value": 18000,
    "policy_days": 900,
    "claims_last_year": 0,
    "images": [{"part": "front bumper", "damage": 0.5}, {"part": "left headlight", "damage": 1.0}],
}
SUSPICIOUS = {**CLAIM, "amount": 18000, "policy_days": 3, "claims_last_year": 4}
