"""The orchestrator: knows the fleet, decides its size, and asks for what is missing."""
