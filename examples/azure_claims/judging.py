"""What is decided of a claim: plain functions, which know nothing of where they run."""

PART_PRICES = {"front bumper": 1200, "rear bumper": 1100, "left headlight": 900, "door": 1500}
RISK_LIMIT = 0.8


def risk_of(claim):
    """0.0 to 1.0: high for a claim near the car's value, soon after the policy began, from a frequent claimant."""
    of_value = min(claim["amount"] / claim["car_value"], 1.0)
    newness = max(0.0, 1.0 - claim["policy_days"] / 365)
    habit = min(claim["claims_last_year"] / 3, 1.0)
    return round(0.4 * of_value + 0.3 * newness + 0.3 * habit, 2)


def cost_of(claim, part):
    """What one damaged part costs, and no more than the claim."""
    return min(PART_PRICES.get(part, 500), claim["amount"])
