"""The category tree: reading it, checking it, and placing products in it. Pure Python and numpy.

`tree.Taxonomy` is the checked tree, `sources.read_taxonomy` reads one, `paths.place` puts products into it
and gives the matrix that training takes, `rqvae.tree.distance` is the structural distance that the loss goes by.
"""
