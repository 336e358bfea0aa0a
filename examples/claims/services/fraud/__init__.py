"""Fraud scoring: how probably a claim is fraudulent, and why.

- `circumstances`: what the model gets to see of a claim, and the words for it.
- `training`: claims with a known end, generated or from a file.
- `model`: a logistic regression, its reasons and its confidence.
- `figures`: how good it is, by cross-validation; README.md has the result.
- `service`: the HTTP.
"""
