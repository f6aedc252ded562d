"""The recipe of the reference pack: render phantoms, draw samples, train, export.

rendering  phantom studies rendered once, kept on disk
samples    rendered studies → augmented network inputs and targets
loops      one resumable training loop for each network
"""
