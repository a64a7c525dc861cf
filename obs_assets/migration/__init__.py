"""Pipeline files from the configuration of other collectors: the common part, with comments for the rest."""

from obs_assets.migration.draft import Draft
from obs_assets.migration.fluent_bit import read_fluent_bit
from obs_assets.migration.vector import read_vector

__all__ = ["Draft", "read_fluent_bit", "read_vector"]
