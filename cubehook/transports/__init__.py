"""
Ways to deliver an event: each module one transport, found through `cubehook.plugins`.
"""
