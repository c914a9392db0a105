"""A pass through a network, number by number: what each cell is, where it comes from, and who uses it.

`trace.py` answers for any cell of one pass, whose numbers are in `numbers.py`; `explanation.py` is what it answers,
`cells.py` has the names of cells, `document.py` the two JSON documents, `digits.py` the rounding of numbers that people
add up, `update.py` the optimizer's next step, `payload.py` and `html.py` the page. What a cell's terms are, the layers
say (`core.terms`); nothing here computes a pass a second time.
"""
