"""Budgets: small on every commit; `--hypothesis-profile=nightly` looks some fifty times longer."""

from hypothesis import settings

settings.register_profile("nightly", max_examples=5000, deadline=None)
