"""Operations and bytes of each layer, the ceilings of the machine, and the time between the two."""
