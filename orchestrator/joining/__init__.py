"""How nodes come in: one-use join secrets, registrations, credentials, adoption."""
