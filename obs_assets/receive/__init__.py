"""`obs receive`: an HTTP server that writes events into event files before it answers.

A request is checked and written as lines; landing's table of formats makes the events, so that a file
and a request give the same event. `spool` writes the files, `bodies` unpacks requests, each protocol
has a module (`otlp`, `json_events`, `hec`, `bulk`), and `app` puts them together.
"""
