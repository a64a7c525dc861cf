"""Landing: the only stage that reads from outside.

files.py    lists the event files, and recognises known files
bucket.py   event files in a bucket
reader.py   bytes ─▶ events and dead letters, every byte accounted for
times.py    where an event's time is found, and which times are valid
log.py      the landing log: passes that appear in a single step, and their sum
landing.py  one pass over the files
replay.py   lists dead letters, and reads them again
"""
