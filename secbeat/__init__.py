"""The language that SecBeat's services share: wire models, settings, the NATS adapter, errors, the command.

Services import from here and never from each other; the linter holds both.
"""

__version__ = "0.1.0"
