"""The only folder that imports Dagster: assets for stages, a job for landing, a schedule and sensors for hours.

A component in YAML is `ObservabilityPipeline`; in Python, `pipeline_definitions`.
"""

from obs_assets.components.pipeline import ObservabilityPipeline, pipeline_definitions

__all__ = ["ObservabilityPipeline", "pipeline_definitions"]
