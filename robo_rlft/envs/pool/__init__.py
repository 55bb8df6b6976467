"""Simulators that step one environment at a time, as batches: in this process or spread over worker processes."""
