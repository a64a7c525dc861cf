"""Azure's resource logs as Event Hubs and Functions receive them: ``{"records": [{"time": …}, …]}``."""

from obs_assets.sources.formats.base import Envelope

FORMAT = Envelope("azure", path=("records",), keys=frozenset({"records"}), others=frozenset())
