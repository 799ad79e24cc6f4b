"""Code that runs in processes of its own, never in the notebook's: confinement, the fork server, the session.

It imports nothing else of this project, and of other packages only what a session offers.
"""
