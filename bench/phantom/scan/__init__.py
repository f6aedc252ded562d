"""How a patient is imaged.

position         patient and axial slices turned
tall_field       fields of view of 160 to 600 mm
scan_conditions  protocol, contrast and artefacts of a scan
acquisition      protocols, coil, k-space, noise
artefacts        ghosts, parallel imaging, zero-filling, shading
"""
