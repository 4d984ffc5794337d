"""Generated pages of the documentation: each is made from the program itself at every build, so none can be stale."""
