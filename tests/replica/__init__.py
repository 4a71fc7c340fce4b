"""Local stand-ins for the remote stores that the catalog points at.

Servers that count what they are asked and misbehave on demand, and builders for miniature data in the published forms.
"""
