"""What every HTTP request passes: connection, limits, guard, parameters, response. Nothing of jobs."""
