"""Fakes and fault injection, for our tests and for users' own."""
