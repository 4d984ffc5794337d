"""What compares desired with actual: records, the gate before every effect, pools, liveness, the scaling loop."""
