"""OpenMOFI: noisy image-caption pairs -> entity-labelled images -> encoders -> search.

The folder list is the data flow; read it top to bottom:
kb -> pairs -> link -> label -> select -> model -> train -> embed -> evaluate | search.
"""

__version__ = "0.1.0"
