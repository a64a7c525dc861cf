"""Landing: the only stage that looks at the world.

files.py    which event files there are, and which of them is one that we know
bucket.py   event files in a bucket
reader.py   bytes ─▶ events and dead letters, every byte accounted for
times.py    where an event's time is found, and what it may be
log.py      what has landed: passes that appear whole, and the state they add up to
landing.py  one pass over the files
replay.py   dead letters, listed and read once more
"""
