"""How well results agree with truth, with readers, and on images that must not be graded."""
