"""Delivery of hours: the kinds of destination, and the outbox of alerts with its retries."""
