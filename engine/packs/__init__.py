"""Model packs: reading and checking them, signatures and keys, and the crop that each model input covers.

`reference/` is the reference pack, which is data.
"""
