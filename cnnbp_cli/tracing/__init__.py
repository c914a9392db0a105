"""A pass through a network, number by number: what each cell is, where it comes from, and who uses it.

`numbers.py` runs the pass, `traced_pass.py` answers for any cell of it, `explanation.py` is what it answers, and
`trace.py` adds the documents. `cells.py` has the names of cells, `document.py` the two JSON documents, `digits.py` the
rounding of numbers that people add up, `update.py` the optimizer's next step, `source.py` what the command loads,
`payload.py`, `miniatures.py` and `html.py` the page. What a cell's terms are, the layers say (`core.terms`); nothing
here computes a pass a second time.
"""
