"""One patient, and the truth that follows from the geometry. Nothing here knows of signal or scanner.

spine       curve of the spinal canal, and coordinates along it
anatomy     sizes, stenoses, truth
stenoses    encroachments that yield a grade
landmarks   points that tell the levels apart
findings    what a patient has besides stenoses; deformity, ossified and hardware say where
tall_spine  spine continued to the sacrum, canal into the head
"""
