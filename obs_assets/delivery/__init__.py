"""What stands between an hour and a receiver that can only append: a ledger of what was sent, an outbox, retries."""
