"""The command: `secbeat …`."""
