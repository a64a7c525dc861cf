"""The only folder that knows Dagster: stages become assets, landing a job, closing hours a schedule and sensors.

A component in YAML is `ObservabilityPipeline`; in Python, `pipeline_definitions`.
"""

from obs_assets.components.pipeline import ObservabilityPipeline, pipeline_definitions

__all__ = ["ObservabilityPipeline", "pipeline_definitions"]
