"""The provisioner's HTTP surface."""
