"""The HTTP server of `obs serve`: searches of stored events, live events, health.

Thin: a route reads its parameters, asks a function of `obs_assets.search` and writes the answer.
`serving` is the server process, which knows no route; `app` puts the routes together.
"""
