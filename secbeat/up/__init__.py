"""`secbeat up`: the whole system from one terminal."""
