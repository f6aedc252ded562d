"""The recipe of the reference pack: render phantoms, draw samples, train, export.

rendering  phantom studies rendered once, kept on disk
samples    rendered studies → augmented network inputs and targets
loops      one resumable training loop for each network
beginning  initial weights from a file, and which of them are trained
quantised  INT8 simulated in the forward pass
logs       a row for each validation
curves     the logs as a picture
confidence temperatures, and how far probabilities are from the truth
"""
