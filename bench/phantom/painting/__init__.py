"""The T2 signal of a patient at points in canal coordinates.

tissue          the signal, painted by soft_tissue, vertebrae and canal_contents
tissue_traits   contrast, and sizes that do not enter the truth
texture         random texture
finding_tissue  findings, painted over the tissue of phantoms and of real anatomy
tall_tissue     chest, loin and head of tall images
"""
