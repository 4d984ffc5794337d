"""What the services tell about themselves: the catalogue of metrics, the schema of log lines, traces.

The catalogue is plain data. Prometheus' client and OpenTelemetry are imported by the modules that need them, never
here: a machine without the extras can read the catalogue all the same.
"""
