"""Photos: a store by digest, which the application shares, and an assessment of what they show.

- `store`, `anatomy`: uploads into a folder, and what is refused.
- `pictures`: a stored photo as arrays, small enough to be looked at quickly.
- `readable`, `taken`, `resemblance`, `damage`: the questions that the assessment answers.
- `register`: the photos of all claims, to find those seen before.
- `assessment`, `service`: all of it for one claim, and over HTTP.
- `drawing`: photo-like pictures of cars whose damage is known, for the demo and for the figures in README.md.
"""
