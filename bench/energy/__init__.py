"""Power and energy, from the sensors that a machine has."""
