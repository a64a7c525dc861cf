"""Search: a query language and the questions that people ask of stored events. Nothing here knows HTTP.

`language` parses and prints a query, `rows` names what a query can ask of a row, `postgres` compiles a
query to SQL with parameters, `predicate` decides about a single row in Python, and `questions` runs a
query against the table of events.
"""
