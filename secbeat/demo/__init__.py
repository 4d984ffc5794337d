"""`secbeat demo`: the whole loop on a private instance, with real load."""
