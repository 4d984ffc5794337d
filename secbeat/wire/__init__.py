"""What goes over the wires, one module per conversation. Readers accept version N and N-1 and ignore unknown keys."""
