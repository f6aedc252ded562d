"""Training of the reference pack: phantoms are rendered, samples drawn, networks trained and packed."""
