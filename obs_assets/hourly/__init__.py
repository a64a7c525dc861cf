"""An hour's way through the stages: its configuration, frames, deliveries, locks and expiry."""
