"""Search: a query language and the questions that people ask of stored events. Nothing here knows HTTP.

::

    language      text ⇄ syntax tree
    rows          columns and paths that a query can name, and which values are equal
    predicate     decides about a single row in Python: the meaning of a query
    postgres      compiles a query to SQL
    duckdb        rules rows of a frame out, then asks the predicate
    questions     the list of events, one event, its neighbours; snapshots and time limits
    counting      counts over slots of time and values, from tables of statistics where they can answer
    histogram, facets, statistics    what is counted
    export        every event of a range as a stream
"""
