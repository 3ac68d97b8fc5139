"""Budgets: small on every commit; `--hypothesis-profile=nightly` looks ten times longer."""

from hypothesis import settings

settings.register_profile("nightly", max_examples=1000, deadline=None)
