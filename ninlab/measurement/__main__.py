"""The process that `processes.measure_in_process` starts."""

from ninlab.measurement.processes import serve

serve()
