"""The way of an hour through the stages: configuration, frames, deliveries, locks and expiry."""
