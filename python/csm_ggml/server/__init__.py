"""The speech server: one process that many programs and people share (docs/SERVER.md).

Its faces (HTTP, WebSocket, Wyoming, the page) turn requests into jobs of the loaded model's
scheduler and jobs into bytes; there is no queue but the scheduler's.
"""
