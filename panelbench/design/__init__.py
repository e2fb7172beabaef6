"""From data and no opinion to a panel that can be ordered, with the page that argues for it.

A few selectors (`selectors`) are tried on parts of the cells that they have not seen
(`suites`, `perform`), one is taken by a stated rule (`choice`) and chooses the panel from all
cells. What the panel's genes do is described on these (`cells`, `genes`, `pairs`, `gains`), drawn
(`figures`) and told (`page`). Every selection and every score is an ordinary run of the suite.
"""
