"""A policy behind a websocket, as BEHAVIOR's evaluator asks for it, and a client for such servers.

``messages`` is the wire format, ``session`` what the server knows of a client, ``server`` the
websockets, ``client`` the other side. See docs/serving.md.
"""
