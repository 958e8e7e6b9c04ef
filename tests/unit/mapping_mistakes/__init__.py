"""Mistakes in a mapping file, one replacement each, and what is said about them."""

from __future__ import annotations

from tests.unit.mapping_mistakes.places import PLACES
from tests.unit.mapping_mistakes.shape import SHAPE
from tests.unit.mapping_mistakes.steps import STEPS
from tests.unit.mapping_mistakes.whole import WHOLE

MISTAKES = (*SHAPE, *STEPS, *PLACES, *WHOLE)
