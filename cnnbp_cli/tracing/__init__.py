"""A pass through a network, number by number: what each cell is, where it comes from, and who uses it.

`trace.py` runs the pass and answers for any cell; `cells.py` has their names, `document.py` the two JSON documents,
`digits.py` the rounding of numbers that people add up. What a cell's terms are, the layers say (`core.terms`);
nothing here computes a pass a second time.
"""
