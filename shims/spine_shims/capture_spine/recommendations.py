"""Old import: ``from app.tasks.recommendations import update_recommendations``.
New import: ``from spine_shims.capture_spine.recommendations import update_recommendations``.
"""

from __future__ import annotations

from spine_shims.shipped import shipped

update_recommendations = shipped("app.tasks.recommendations.update_recommendations", "recommendations")
